"""Compose scenes out of drawings with known masks, in COCO layout, so that the ordinary evaluator
reads them.

A scene is a background (plain, textured, or smooth like an unsharp photograph) with a few cut-outs
that hardly overlap.

Letters: S side of a scene in pixels, h w size of a cut-out in pixels.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from clim_data.drawings.emoji import EmojiSet, caption_of, load_emoji, vendors_by_concept
from clim_data.pixels.boxes import box_of_mask

BACKGROUNDS = ("plain", "textured", "photo")


@dataclass(frozen=True)
class SceneFolder:
    """Paths of a composed set; `classes[i]` has category id i + 1."""

    root: Path
    classes: tuple[str, ...]

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def panoptic_json(self) -> Path:
        return self.root / "annotations" / "panoptic.json"

    @property
    def panoptic(self) -> Path:
        return self.root / "annotations" / "panoptic"

    @property
    def instances_json(self) -> Path:
        return self.root / "annotations" / "instances.json"

    @property
    def captions_json(self) -> Path:
        return self.root / "annotations" / "captions.json"


@dataclass(frozen=True)
class Scene:
    """One composed scene.

    image: uint8 (S, S, 3); segments: int32 (S, S), 0 background, i + 1 where cut-out i is visible;
    names: of cut-outs.
    """

    image: np.ndarray
    segments: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class SceneOptions:
    """Sizes of composed scenes.

    Attributes:
        objects: drawings in a scene.
        object_px: range of the longer side of a cut-out.
        image_px: side of a scene.

    Raises:
        ValueError: the sizes do not rise, or the objects do not fit.
    """

    objects: int = 5
    object_px: tuple[int, int] = (24, 64)
    image_px: int = 192

    def __post_init__(self) -> None:
        check_sizes(self.object_px, self.image_px, self.objects)


def check_sizes(object_px: tuple[int, int], image_px: int, objects: int) -> None:
    """Check that `objects` cut-outs fit in a scene with little overlap.

    Raises:
        ValueError: they do not, or the range does not rise.
    """
    if not 2 <= object_px[0] <= object_px[1]:
        raise ValueError(f"object_px={object_px} must rise from at least 2: such as (24, 64)")
    if objects * object_px[1] ** 2 > 2 * image_px**2:
        raise ValueError(
            f"object_px={object_px}: {objects} objects must fit in {image_px} px; "
            "choose smaller objects or a larger image_px"
        )


def check_drawings(object_px: tuple[int, int], emoji: EmojiSet) -> None:
    """Check that no cut-out is larger than its drawing.

    Raises:
        ValueError: one can be.
    """
    if object_px[1] > emoji.size:
        raise ValueError(
            f"object_px={object_px}: drawings have {emoji.size} px, choose at most that"
        )


def compose_scenes(
    folder: str | Path,
    *,
    vendor: str | Sequence[str],
    concepts: Sequence[str],
    count: int = 200,
    emoji: EmojiSet | None = None,
    options: SceneOptions = SceneOptions(),
    seed: int = 0,
) -> SceneFolder:
    """Write scenes of drawings and return where they are.

    The folder gets `images/*.png`, and under `annotations/` panoptic json and png, instances (RLE)
    and captions, as COCO has them.

    Args:
        vendor: whose drawings, one name or several to draw from.
        concepts: the classes; each is used equally often, up to one.
        count: number of scenes.
        emoji: the drawings; None for the set that comes with the package.
        options: sizes.

    Raises:
        ValueError: the vendors draw too few of the concepts, or objects are larger than drawings.
    """
    emoji = emoji or load_emoji()
    vendors = (vendor,) if isinstance(vendor, str) else tuple(vendor)
    check_drawings(options.object_px, emoji)
    drawn = vendors_by_concept(emoji, vendors, concepts)
    if len(drawn) < options.objects:
        raise ValueError(
            f"{vendors} draw fewer than objects={options.objects} of the {len(concepts)} concepts; "
            "give more concepts"
        )

    rng = np.random.default_rng(seed)
    target = SceneFolder(Path(folder), tuple(concepts))
    queue = _name_queue(rng, list(drawn), count * options.objects, options.objects)

    scenes = []
    for first in range(0, len(queue), options.objects):
        names = tuple(queue[first : first + options.objects])
        cutouts = draw_cutouts(emoji, names, drawn, rng)
        scene = compose(cutouts, names, rng, image_px=options.image_px, object_px=options.object_px)
        scenes.append(scene)
    write_scenes(target, scenes)
    return target


def draw_cutouts(
    emoji: EmojiSet,
    names: Sequence[str],
    drawn: Mapping[str, Sequence[str]],
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Choose a vendor for each name and return the drawings."""
    return [emoji.image(drawn[name][int(rng.integers(len(drawn[name])))], name) for name in names]


def _name_queue(rng: np.random.Generator, names: list[str], length: int, objects: int) -> list[str]:
    """A sequence in which names come equally often (up to one) and no group of `objects` holds a
    name twice."""
    queue: list[str] = []
    while len(queue) < length:
        start = len(queue) // objects * objects
        open_group = set(queue[start:])
        order = [names[i] for i in rng.permutation(len(names))]
        # Names already in the unfinished group move to the end of this round.
        order = [n for n in order if n not in open_group] + [n for n in order if n in open_group]
        queue += order
    return queue[:length]


def compose(
    cutouts: Sequence[np.ndarray],
    names: Sequence[str],
    rng: np.random.Generator,
    *,
    image_px: int,
    object_px: tuple[int, int],
) -> Scene:
    """Paste RGBA cut-outs (h, w, 4) of random sizes on a background, largest first, each where it
    overlaps least."""
    sizes = np.sort(rng.integers(object_px[0], object_px[1] + 1, len(cutouts)))[::-1]
    order = rng.permutation(len(cutouts))
    image = background(rng, image_px, BACKGROUNDS[rng.integers(len(BACKGROUNDS))])
    segments = np.zeros((image_px, image_px), np.int32)
    taken = np.zeros((0, 4))
    for size, which in zip(sizes, order, strict=True):
        patch = fit_cutout(cutouts[which], int(size))
        h, w = patch.shape[:2]
        x, y = _free_place(rng, taken, (w, h), image_px)
        taken = np.vstack([taken, [x, y, x + w, y + h]])
        alpha = patch[..., 3:] / 255
        window = (slice(y, y + h), slice(x, x + w))
        image[window] = image[window] * (1 - alpha) + patch[..., :3] * alpha
        segments[window][alpha[..., 0] > 0.5] = which + 1
    return Scene(image.round().astype(np.uint8), segments, tuple(names))


def fit_cutout(drawing: np.ndarray, size: int) -> np.ndarray:
    """Cut the transparent border off an RGBA drawing and scale its longer side to `size` pixels."""
    box = box_of_mask(drawing[..., 3] > 0)
    if box is None:
        raise ValueError("the drawing is transparent everywhere: leave it out")
    left, top, right, bottom = box
    inside = drawing[top:bottom, left:right]
    scale = size / max(inside.shape[:2])
    h, w = (max(1, round(side * scale)) for side in inside.shape[:2])
    return np.asarray(
        Image.fromarray(inside).resize((w, h), Image.Resampling.LANCZOS, reducing_gap=None)
    )


def _free_place(
    rng: np.random.Generator,
    taken: np.ndarray,
    size: tuple[int, int],
    image_px: int,
    tries: int = 64,
) -> tuple[int, int]:
    """Of `tries` random places, the (x, y) whose box shares the smallest area with the boxes in
    `taken`."""
    room = image_px - np.array(size) + 1
    xy = (rng.random((tries, 2)) * room).astype(int)
    low = np.maximum(xy[:, None], taken[None, :, :2])
    high = np.minimum((xy + size)[:, None], taken[None, :, 2:])
    shared = (high - low).clip(min=0).prod(-1).sum(-1)
    return tuple(xy[np.argmin(shared)])


def background(rng: np.random.Generator, size: int, kind: str) -> np.ndarray:
    """Make a float RGB background (size, size, 3) in [0, 255] of one of `BACKGROUNDS`."""
    if kind == "plain":
        return np.broadcast_to(rng.uniform(0, 255, 3), (size, size, 3)).copy()
    if kind == "textured":
        y, x = np.mgrid[:size, :size] / size
        angle, frequency = rng.uniform(0, np.pi), rng.uniform(4, 24)
        wave = np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)))
        if rng.random() < 0.5:
            wave = np.sign(
                wave * np.sin(2 * np.pi * frequency * (y * np.cos(angle) - x * np.sin(angle)))
            )
        first, second = rng.uniform(0, 255, (2, 3))
        mixed = first + (second - first) * rng.uniform(0.1, 0.5) * (wave[..., None] + 1) / 2
        return (mixed + rng.normal(0, 6, (size, size, 1))).clip(0, 255)
    if kind == "photo":
        # Octaves of smooth noise over a vertical gradient: soft shapes with finer detail, like an
        # unsharp photo. As in photographs, light varies more than colour.
        sky, ground = rng.uniform(40, 215, (2, 1)) + rng.uniform(-40, 40, (2, 3))
        image = sky + (ground - sky) * np.linspace(0, 1, size)[:, None, None] ** rng.uniform(0.5, 2)
        image = np.repeat(image, size, axis=1)
        for cells in (3, 6, 12, 24, 48):
            light, colour = (
                rng.normal(0, 60, (cells, cells, 1)),
                rng.normal(0, 15, (cells, cells, 3)),
            )
            noise = Image.fromarray((127.5 + light + colour).clip(0, 255).astype(np.uint8))
            smooth = np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC), float) - 127.5
            image = image + smooth * (1.2 / cells**0.5)
        return image.clip(0, 255)
    raise ValueError(f"kind={kind!r}; legal values are {BACKGROUNDS}")


def write_scenes(target: SceneFolder, scenes: Iterable[Scene]) -> None:
    """Write scenes as images, panoptic json + png, instances and captions.

    Scene i gets the image id i + 1.
    """
    for path in (target.images, target.panoptic):
        path.mkdir(parents=True, exist_ok=True)
    category = {name: i for i, name in enumerate(target.classes, start=1)}

    images: list[dict] = []
    panoptic: list[dict] = []
    instances: list[dict] = []
    captions: list[dict] = []
    for image_id, scene in enumerate(scenes, start=1):
        name = f"{image_id:012d}.png"
        _write_pictures(target, name, scene)
        height, width = scene.segments.shape
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})

        infos = []
        for number, info, segmentation in _segments(scene, category):
            infos.append({"id": number, **info})
            about = {"id": len(instances) + 1, "image_id": image_id}
            instances.append({**about, **info, "segmentation": segmentation})
        panoptic.append({"image_id": image_id, "file_name": name, "segments_info": infos})
        captions.append({"id": image_id, "image_id": image_id, "caption": _caption(scene)})

    categories: list[dict[str, Any]] = []
    things: list[dict[str, Any]] = []
    for name, i in category.items():
        entry = {"id": i, "name": caption_of(name), "supercategory": "drawing"}
        categories.append(entry)
        things.append({**entry, "isthing": 1, "color": [i & 255, i >> 8, 128]})

    files: dict[Path, dict[str, list[dict]]] = {
        target.panoptic_json: {"annotations": panoptic, "categories": things},
        target.instances_json: {"annotations": instances, "categories": categories},
        target.captions_json: {"annotations": captions},
    }
    for path, content in files.items():
        path.write_text(json.dumps({"images": images, **content}))


def _write_pictures(target: SceneFolder, name: str, scene: Scene) -> None:
    """Write a scene's image, and its segment ids as colours, as COCO's panoptic png has them."""
    Image.fromarray(scene.image).save(target.images / name, compress_level=1)
    ids = scene.segments
    colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
    Image.fromarray(colours).save(target.panoptic / name, compress_level=1)


def _segments(
    scene: Scene, category: Mapping[str, int]
) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Yield (segment id, category, area and box, RLE) of each cut-out that is visible."""
    for number, name in enumerate(scene.names, start=1):
        code = rle.encode(np.asfortranarray(scene.segments == number))
        area = int(rle.area(code))
        if area:
            info = {"category_id": category[name], "area": area, "iscrowd": 0}
            info["bbox"] = rle.toBbox(code).tolist()
            yield number, info, {"size": code["size"], "counts": code["counts"].decode()}


def _caption(scene: Scene) -> str:
    """List the names of a scene: "a, b and c"."""
    *others, last = [caption_of(name) for name in scene.names]
    return f"{', '.join(others)} and {last}" if others else last
