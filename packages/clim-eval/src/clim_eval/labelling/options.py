"""The options of a labelling job, in one object."""

from dataclasses import dataclass
from pathlib import Path

from clim_models.text import Vocabulary

from clim_eval.evaluators.regions import BOX_FEATURES
from clim_eval.evaluators.sharing import check_sizes


@dataclass(frozen=True)
class PseudoLabelOptions:
    """The options of `clim-eval pseudo-label`, by the same names.

    images: folders of images, or shards. boxes: COCO json of proposals. out: COCO json to write.
    nouns: text file with one noun per line, or embeddings of `clim-eval embed`. vocabulary: file
    with several phrases of a class, `not` and example pictures. names: class names themselves. One
    of the three is given.
    model, pretrained, precision, device, trust: which CLIP names the boxes, and where it runs.
    captions_json: COCO captions; None uses captions that come with the images. no_captions: choose
    among all nouns for every image.
    min_box_px, max_box_px: limits of the square root of a box's area, in pixels.
    features: one of `BOX_FEATURES`. image_px: side of the input for features of whole images; None
    is the size of the training, else 64 patches. context: size of a crop in sizes of its box.
    min_score: least probability of the noun among all nouns. max_boxes: boxes per image.
    templates, cache, no_cache: how the nouns of a text file are embedded.
    batch_size: crops (default 256) or whole images (8) per forward pass.
    part_images: images per part; a killed run loses one part. patience: seconds that rank 0 waits
    without news of the others. overwrite: replace an output of other input or options.

    Raises:
        ValueError: an option is out of range, or contradicts another.
    """

    images: tuple[str, ...]
    boxes: Path
    out: Path
    nouns: Path | None = None
    vocabulary: Path | None = None
    names: tuple[str, ...] = ()
    model: str | None = None
    pretrained: str | None = None
    precision: str = "fp32"
    device: str | None = None
    trust: bool = False
    captions_json: Path | None = None
    no_captions: bool = False
    min_box_px: float = 8
    max_box_px: float = 1024
    features: str = "crops"
    image_px: int | None = None
    context: float = 1.5
    min_score: float = 0.0
    max_boxes: int | None = 20
    templates: str = "vild"
    cache: Path | None = None
    no_cache: bool = False
    batch_size: int | None = None
    workers: int = 0
    part_images: int = 512
    patience: float = 1800
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_sizes(self.batch_size, self.workers, self.part_images)
        if self.features not in BOX_FEATURES:
            raise ValueError(f"--features {self.features}: choose from {', '.join(BOX_FEATURES)}")
        if self.captions_json is not None and self.no_captions:
            raise ValueError("--captions-json and --no-captions contradict: pass one of them")
        if sum(map(bool, (self.nouns, self.vocabulary, self.names))) != 1:
            raise ValueError("pass one of class names, --nouns FILE and --vocabulary JSON")
        if self.names:
            Vocabulary.of(self.names)  # each name is one class
        if self.out.is_dir():
            raise ValueError(f"--out {self.out} is a folder: name the json file to write")
