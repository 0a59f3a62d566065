"""What the training parts train: generated photographs with captions, boxes and classes, and one
case per method.

On a GPU the tower is EVA02-B/16 with random weights. A rehearsal trains a tower of the same kind
with two narrow blocks.
"""

import json
import socket
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from clim_data import MosaicConfig
from clim_models import RegionModel
from clim_train import (
    BoxDataConfig,
    ClimConfig,
    ClipSelfConfig,
    CropDataConfig,
    EngineConfig,
    ModelConfig,
    OptimConfig,
    PairDataConfig,
    RegionClipConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
    build_loader,
    build_model,
)
from pictures import jpeg_bytes
from timm.models import register_model
from timm.models.eva import Eva

from gpu_parts.record import Part

METHODS = ("clim", "clipself", "regionclip")
TINY_TOWER = "gpu-part-tiny-eva"

# The colours and things of the captions: every photograph gets a caption of its own.
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "brown", "grey")
THINGS = ("cat", "chair", "boat", "tree", "house", "lamp", "horse", "table")


@dataclass(frozen=True)
class Photos:
    """A folder of JPEG files with a txt beside each, and a COCO json of labelled boxes."""

    images: Path
    boxes: Path


def write_photos(folder: Path, count: int, size: tuple[int, int] = (480, 640)) -> Photos:
    """Write `count` photographs of (height, width), their captions, and four boxes for each."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    height, width = size
    rng = np.random.default_rng(0)
    records, boxes = [], []

    for i in range(count):
        name = f"{i:05d}"
        (images / f"{name}.jpg").write_bytes(jpeg_bytes(i, height, width))
        caption = f"a photo of a {COLOURS[i % 8]} {THINGS[i // 8 % 8]}, number {i}"
        (images / f"{name}.txt").write_text(caption)
        records.append({"id": i, "file_name": f"{name}.jpg", "height": height, "width": width})
        for _ in range(4):
            x, y = rng.uniform(0, 0.5, 2) * (width, height)
            w, h = rng.uniform(0.2, 0.5, 2) * (width, height)
            box = [float(side) for side in (x, y, w, h)]
            label = int(rng.integers(len(THINGS)))
            boxes.append(
                {
                    "id": len(boxes),
                    "image_id": i,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                }
            )

    categories = [{"id": i, "name": name} for i, name in enumerate(THINGS)]
    path = folder / "boxes.json"
    path.write_text(json.dumps({"images": records, "annotations": boxes, "categories": categories}))
    return Photos(images, path)


def class_embeddings(folder: Path, channels: int) -> Path:
    """Write random embeddings of the classes: what they mean does not matter to the arithmetic."""
    path = folder / "classes.npy"
    np.save(
        path, np.random.default_rng(1).standard_normal((len(THINGS), channels)).astype(np.float32)
    )
    return path


def method_config(
    method: str, part: Part, photos: Photos, *, unlocked_blocks: int | None = None
) -> TrainConfig:
    """Return the configuration of one method at the size of this run, for 30 steps on two
    batches."""
    tower = TINY_TOWER if part.tiny else "EVA02-B-16"
    large, small = (32, 16) if part.tiny else (448, 224)
    blocks = unlocked_blocks if unlocked_blocks is not None else (2 if part.tiny else 12)
    source: dict[str, Any] = {"images": str(photos.images), "workers": 0}

    if method == "clim":
        mosaic = MosaicConfig(
            canvas_px=large, single_px=small, **({"mix": {2: 1}} if part.tiny else {})
        )
        data = PairDataConfig(batch_size=6 if part.tiny else 32, mosaic=mosaic, **source)
        task = ClimConfig()
    elif method == "clipself":
        data = CropDataConfig(batch_size=2, image_px=large, crop_px=small, **source)
        task = ClipSelfConfig()
    else:
        data = BoxDataConfig(batch_size=2, image_px=large, boxes=str(photos.boxes), **source)
        embeddings = class_embeddings(photos.boxes.parent, 16 if part.tiny else 512)
        task = RegionClipConfig(embeddings=str(embeddings))

    return TrainConfig(
        model=ModelConfig(name=tower, pretrained=None, unlocked_blocks=blocks),
        data=data,
        task=task,
        # AdamW moves a weight by its whole rate in the direction of rounding noise where a gradient
        # is nothing else. With an eps above that noise, runs that differ in rounding stay together.
        optim=OptimConfig(lr=1e-3 if part.tiny else 3e-5, eps=1e-6, clip_norm=None),
        schedule=ScheduleConfig(steps=30, warmup_steps=2 if part.tiny else 6),
        engine=EngineConfig(zero_stage=0, precision="amp_bf16", device=part.device.type),
        run=RunConfig(folder=str(part.folder / method), log_every=1, bar=False, tensorboard=False),
    )


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def with_engine(config: TrainConfig, **changes: Any) -> TrainConfig:
    """Return the configuration with other options of the engine."""
    return replace(config, engine=replace(config.engine, **changes))


def make_model(config: TrainConfig, device: torch.device) -> RegionModel:
    """Build the tower with its random weights on the device."""
    register_tiny_tower()
    return build_model(config).to(device)


def first_batches(config: TrainConfig, device: torch.device, count: int = 2) -> list[Any]:
    """Return the first batches of the real loader, on the device."""
    batches = iter(build_loader(config))
    return [next(batches).to(device) for _ in range(count)]


@cache
def register_tiny_tower() -> None:
    """Make open_clip know `TINY_TOWER`: EVA02's kind of block, narrow, with 16 px images."""

    def gpu_part_tiny_eva(pretrained: bool = False, **options: Any) -> Eva:
        options = {
            key: value
            for key, value in options.items()
            if not key.startswith(("pretrained", "cache"))
        }
        sizes = {
            "img_size": 16,
            "patch_size": 8,
            "embed_dim": 32,
            "depth": 2,
            "num_heads": 2,
            "mlp_ratio": 2.0,
        }
        kind = {"qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True}
        return Eva(**sizes, **kind, use_rot_pos_emb=True, ref_feat_shape=(16, 16), **options)

    gpu_part_tiny_eva.__module__ = __name__
    register_model(gpu_part_tiny_eva)
    vision = {
        "image_size": 16,
        "timm_model_name": "gpu_part_tiny_eva",
        "timm_pool": "token",
        "timm_proj": None,
    }
    text = {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "custom_text": True}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{TINY_TOWER}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder)
