"""Compose scenes out of drawings with known masks, in COCO layout, so that the ordinary evaluator
reads them.

A scene is a background (plain, textured, or smooth like an unsharp photograph) with a few cut-outs
that hardly overlap.

Letters: S side of a scene in pixels, h w size of a cut-out in pixels.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from clim_data.drawings.emoji import EmojiSet, caption_of, load_emoji
from clim_data.pixels.boxes import box_of_mask

BACKGROUNDS = ("plain", "textured", "photo")


@dataclass(frozen=True)
class SceneFolder:
    """Where the parts of a composed set lie; `classes[i]` has category id i + 1."""

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


def compose_scenes(
    folder: str | Path,
    *,
    vendor: str | Sequence[str],
    concepts: Sequence[str],
    count: int = 200,
    emoji: EmojiSet | None = None,
    objects: int = 5,
    object_px: tuple[int, int] = (24, 64),
    image_px: int = 192,
    seed: int = 0,
) -> SceneFolder:
    """Write `count` scenes of `objects` drawings each and return where they are.

    vendor: whose drawings (one, or several to draw from); concepts: the classes, each used equally
    often up to one; object_px: range of the longer side of a cut-out. The folder gets
    `images/*.png` and under `annotations/` panoptic json + png, instances (RLE) and captions, as
    COCO has them. ValueError when the vendors draw too few of the concepts or the objects cannot
    fit.
    """
    emoji = emoji or load_emoji()
    vendors = (vendor,) if isinstance(vendor, str) else tuple(vendor)
    drawings = [(v, name) for name in concepts for v in vendors if emoji.has(v, name)]
    if len({name for _, name in drawings}) < objects:
        raise ValueError(
            f"{vendors} draw fewer than objects={objects} of the {len(concepts)} concepts; give "
            "more concepts"
        )
    if (
        not 2 <= object_px[0] <= object_px[1] <= emoji.size
        or objects * object_px[1] ** 2 > 2 * image_px**2
    ):
        raise ValueError(
            f"object_px={object_px} must rise within 2..{emoji.size} and {objects} objects must "
            f"fit in {image_px} px"
        )
    rng = np.random.default_rng(seed)
    target = SceneFolder(Path(folder), tuple(concepts))
    queue = _name_queue(
        rng, [*dict.fromkeys(name for _, name in drawings)], count * objects, objects
    )
    by_name: dict[str, list[str]] = {}
    for v, name in drawings:
        by_name.setdefault(name, []).append(v)
    scenes = []
    for i in range(count):
        names = tuple(queue[i * objects : (i + 1) * objects])
        cutouts = [
            emoji.image(by_name[name][rng.integers(len(by_name[name]))], name) for name in names
        ]
        scenes.append(compose(cutouts, names, rng, image_px=image_px, object_px=object_px))
    write_scenes(target, scenes)
    return target


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
    """A float RGB background (size, size, 3) in [0, 255] of one of `BACKGROUNDS`."""
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
    """Write scenes as images, panoptic json + png, instances and captions; scene i gets the image
    id i + 1."""
    for path in (target.images, target.panoptic):
        path.mkdir(parents=True, exist_ok=True)
    category = {name: i + 1 for i, name in enumerate(target.classes)}
    images: list[dict] = []
    panoptic: list[dict] = []
    instances: list[dict] = []
    captions: list[dict] = []
    for image_id, scene in enumerate(scenes, start=1):
        stem = f"{image_id:012d}"
        Image.fromarray(scene.image).save(target.images / f"{stem}.png", compress_level=1)
        ids = scene.segments
        png = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
        Image.fromarray(png).save(target.panoptic / f"{stem}.png", compress_level=1)
        images.append(
            {
                "id": image_id,
                "file_name": f"{stem}.png",
                "height": ids.shape[0],
                "width": ids.shape[1],
            }
        )
        infos = []
        for i, name in enumerate(scene.names, start=1):
            code = rle.encode(np.asfortranarray(ids == i))
            info = {
                "category_id": category[name],
                "area": int(rle.area(code)),
                "iscrowd": 0,
                "bbox": rle.toBbox(code).tolist(),
            }
            if not info["area"]:
                continue
            infos.append({"id": i, **info})
            segmentation = {"size": code["size"], "counts": code["counts"].decode()}
            instances.append(
                {
                    "id": len(instances) + 1,
                    "image_id": image_id,
                    **info,
                    "segmentation": segmentation,
                }
            )
        panoptic.append({"image_id": image_id, "file_name": f"{stem}.png", "segments_info": infos})
        shown = [caption_of(name) for name in scene.names]
        caption = " and ".join(part for part in (", ".join(shown[:-1]), shown[-1]) if part)
        captions.append({"id": image_id, "image_id": image_id, "caption": caption})
    categories: list[dict[str, Any]] = [
        {"id": i, "name": caption_of(name), "supercategory": "drawing"}
        for name, i in category.items()
    ]
    things = [{**c, "isthing": 1, "color": [c["id"] & 255, c["id"] >> 8, 128]} for c in categories]
    files = {
        target.panoptic_json: {"images": images, "annotations": panoptic, "categories": things},
        target.instances_json: {
            "images": images,
            "annotations": instances,
            "categories": categories,
        },
        target.captions_json: {"images": images, "annotations": captions},
    }
    for path, content in files.items():
        path.write_text(json.dumps(content))
