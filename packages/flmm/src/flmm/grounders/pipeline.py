"""One call from phrases to masks: pictures from any source in, plain results out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from clim_data import BrokenSample
from clim_data.pixels import box_of_mask
from clim_models.pipelines import (
    PictureList,
    PictureResult,
    ReadPicture,
    RegionResult,
    Source,
    check_on_error,
    in_lists,
    is_one,
    read_whole,
)
from PIL import Image

from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.precision import DTYPES, dtype_for
from flmm.grounded import GroundedLMM, load_grounded
from flmm.grounders.batches import BatchGrounder
from flmm.grounders.grounder import Grounder, ScoredMasks
from flmm.grounders.heads import HeadsGrounder, images_per_pass, phrases_of_each
from flmm.grounders.vocabulary import VocabularyPhrases, VocabularySource
from flmm.heads.sources import heads_in, trained_with

TASKS = ("grounding",)


@dataclass(frozen=True)
class GroundingOptions:
    """Options of a grounding pipeline.

    Attributes:
        batch_size: pictures of one pass; None is 8 on a GPU and 1 on a CPU.
        min_score: phrases with a lower score are not found.
        each_alone: the LMM reads each phrase by itself, at the cost of a pass for each; without
            it, it reads them one after the other, and one can change the mask of the next.
        precision: of an LMM that is loaded here, "fp32", "bf16" or "fp16"; None is bf16 on a GPU
            and fp32 on a CPU.
        on_error: what happens to a picture of a list that cannot be read or that the LMM cannot
            take, "skip" or "raise": as in `PipelineOptions` of clim-models.

    Raises:
        ValueError: a value that is out of range.
    """

    batch_size: int | None = None
    min_score: float = 0.0
    each_alone: bool = False
    precision: str | None = None
    on_error: str = "skip"

    def __post_init__(self) -> None:
        check_on_error(self.on_error)
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: pass at least 1")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score={self.min_score}: pass a number from 0 to 1")
        if self.precision not in (None, *DTYPES):
            raise ValueError(f"precision={self.precision!r}: choose from {', '.join(DTYPES)}")


class GroundingPipeline:
    """Grounds phrases in pictures: a mask, box and score for each phrase that is found.

    ```python
    find = flmm.pipeline("grounding", heads="runs/llava")
    find("photo.jpg", ["a red car", "the sky"]).plot("out.png")
    ```

    Args:
        grounder: any grounder.
        options: how it is used.
        vocabulary: classes to find where a call names no phrases.
    """

    def __init__(
        self,
        grounder: Grounder,
        options: GroundingOptions | None = None,
        *,
        vocabulary: VocabularyPhrases | None = None,
    ):
        self.grounder = grounder
        self.options = options or GroundingOptions()
        self.vocabulary = vocabulary
        device = grounder.lmm.device
        self.batch_size = self.options.batch_size or images_per_pass(device)

    def __call__(self, pictures: Any, phrases: Any = None) -> Any:
        """Ground phrases in a picture, or in each picture of a list.

        Args:
            pictures: path, http or https URL, encoded bytes, Pillow image, array (height, width, 3)
                or tensor (3, height, width) of uint8 RGB; or a list of them.
            phrases: texts, such as ["a red car", "the sky"]. Of a list of pictures: texts for all
                of them, or one list of texts for each. None: the classes of the vocabulary.

        Returns:
            A `PictureResult` of clim-models, or a list of them. Regions are in the order of the
            phrases, without those that were not found. Boxes and masks lie on the upright picture.

        Raises:
            FileNotFoundError, ValueError: a picture that cannot be read or that the LMM cannot
                take (of lists see `GroundingOptions.on_error`), or no phrases.
        """
        if is_one(pictures):
            return next(self._stream([pictures], phrases, "raise"))
        return list(self.stream(pictures, phrases))

    def stream(self, pictures: Iterable[Source], phrases: Any = None) -> Iterator[PictureResult]:
        """Yield the result of each picture in order, for lists that do not fit into memory.

        Arguments and errors are those of a call.
        """
        return self._stream(pictures, phrases, self.options.on_error)

    def _stream(
        self, pictures: Iterable[Source], phrases: Any, on_error: str
    ) -> Iterator[PictureResult]:
        given = list(pictures)
        classes = self.vocabulary if phrases is None else None
        if phrases is None and classes is None:
            raise ValueError('what is looked for? Pass phrases, such as ["a red car"]')
        wanted = phrases_of_each(phrases if classes is None else classes.phrases, len(given))
        labels: dict[str, int] = {}
        for asked in wanted if classes is None else [classes.names]:
            for text in asked:
                labels.setdefault(text, len(labels))

        batches = BatchGrounder(
            self.grounder, batch_size=self.batch_size, each_alone=self.options.each_alone
        )
        listed = PictureList(read_whole, on_error)
        ahead = listed.read(given, ahead=2 * self.batch_size)
        for batch in in_lists(zip(ahead, enumerate(wanted)), self.batch_size):
            for picture, texts, found in _ground(batch, batches, listed):
                if found is None:
                    yield PictureResult.unread(picture, tuple(labels))
                    continue
                if classes is not None:
                    found, texts = classes.masks(found), classes.names
                yield PictureResult(
                    self._regions(found, texts, labels),
                    tuple(labels),
                    picture.size,
                    picture.name,
                    picture.source,
                )
        listed.finish()

    def _regions(
        self, found: ScoredMasks, phrases: Sequence[str], labels: dict[str, int]
    ) -> tuple[RegionResult, ...]:
        """Return the regions of the phrases that were found in one picture."""
        masks = found.binary(self.options.min_score).cpu().numpy()
        regions = []
        for phrase, mask, score in zip(phrases, masks, found.scores.tolist(), strict=True):
            box = box_of_mask(mask)
            if box is not None:
                x0, y0, x1, y1 = (float(edge) for edge in box)
                corners = (x0, y0, x1, y1)
                regions.append(RegionResult(phrase, score, corners, labels[phrase], mask))
        return tuple(regions)


def _ground(
    batch: Sequence[tuple[ReadPicture, tuple[int, Sequence[str]]]],
    batches: BatchGrounder,
    listed: PictureList,
) -> Iterator[tuple[ReadPicture, Sequence[str], ScoredMasks | None]]:
    """Yield each picture with its phrases and their masks, None where it cannot be used.

    Args:
        batch: pictures, each with its number in the whole list and its phrases.
    """
    pictures = {number: picture for picture, (number, _) in batch}
    items = []
    for picture, (number, texts) in batch:
        if picture.error:
            continue
        image = Image.fromarray(picture.pixels.permute(1, 2, 0).contiguous().numpy())
        try:
            items.append(batches.prepare(number, image, texts, name=picture.name))
        except BrokenSample as fault:
            named = BrokenSample(fault.reason, picture.name, fault.detail)
            pictures[number] = listed.leave_out(picture, named)

    with torch.inference_mode():
        found = {item.number: masks for item, masks in batches(items)}
    for _, (number, texts) in batch:
        yield pictures[number], texts, found.get(number)


def pipeline(
    task: str = "grounding",
    *,
    model: GroundedLMM | Grounder | None = None,
    heads: str | Path | None = None,
    lmm: str | Path | FrozenLMM | None = None,
    sam: str | Path | None = None,
    vocabulary: VocabularySource | None = None,
    device: str | None = None,
    options: GroundingOptions | None = None,
) -> GroundingPipeline:
    """Make a pipeline, which takes pictures and phrases and returns masks.

    ```python
    find = flmm.pipeline("grounding", heads="runs/llava")
    result = find("photo.jpg", ["a red car", "the sky"])  # or a URL, a Pillow image, a list of them
    for region in result:
        print(region.label, region.score, region.box, region.mask.sum())
    ```

    Args:
        task: "grounding".
        model: a model of `load_grounded`, or any grounder, in place of files.
        heads: folder of a training, its heads.safetensors, or a released F-LMM checkpoint.
        lmm, sam: folder or hub id; None takes those that the heads were trained with. `lmm` can be
            one of `load_lmm`, which loads 4-bit weights and adapters, too.
        vocabulary: classes to find where a call names no phrases: a vocabulary file or its
            contents, see `clim_models.text.Vocabulary.of`. A class has the mask of its best phrase,
            and none where a phrase under `not` fits the same thing better.
        device: None is the GPU, if there is one; a model that is passed stays where it is.
        options: see `GroundingOptions`.

    Raises:
        FileNotFoundError, ValueError: an unknown task, or files that are missing or do not fit.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is unknown: choose from {', '.join(TASKS)}")
    settings = options or GroundingOptions()
    classes = None if vocabulary is None else VocabularyPhrases.of(vocabulary)
    if model is not None:
        named = {"heads": heads, "lmm": lmm, "sam": sam, "device": device}
        if idle := [name for name, value in named.items() if value is not None]:
            raise ValueError(f"{', '.join(idle)} and model contradict: pass the model alone")
        grounder = HeadsGrounder(model) if isinstance(model, GroundedLMM) else model
        return GroundingPipeline(grounder, settings, vocabulary=classes)

    if heads is None:
        raise ValueError("masks need trained heads: pass heads=RUN, the folder of a training")
    file = heads_in(Path(heads))
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_grounded(
        lmm or trained_with(file, "lmm", flag=""),
        sam=sam or trained_with(file, "sam", flag=""),
        heads=file,
        dtype=dtype_for(settings.precision, where),
        device=where,
    )
    return GroundingPipeline(HeadsGrounder(loaded), settings, vocabulary=classes)
