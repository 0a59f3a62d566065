"""Small trainings of Detic + CLIM: data on the disk, and the command that trains on them."""

import json
from pathlib import Path

import numpy as np
from clim_train.recipes import find_recipe
from PIL import Image
from tiny_training import VIT, register_tiny_towers


def write_data(folder: Path) -> Path:
    """Write images of noise with boxes, masks, captions and tags; the last class has no boxes."""
    (folder / "images").mkdir(parents=True)
    noise = np.random.default_rng(0)
    images, boxes, tagged = [], [], []
    for i in range(6):
        pixels = noise.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 48})
        for k, (x, y) in enumerate([(2, 3), (20, 10)]):
            corners = [x, y, x + 18, y, x + 18, y + 16, x, y + 16]
            box = {"id": 2 * i + k, "image_id": i, "category_id": 1 + (i + k) % 2, "area": 288}
            box |= {"bbox": [x, y, 18, 16], "iscrowd": 0, "segmentation": [corners]}
            boxes.append(box)
        tags = [3] if i % 2 else [1, 2]
        tagged.append({**images[-1], "captions": [f"thing {i}"], "pos_category_ids": tags})
    frequencies = zip(("cat", "red ball", "cow"), "fcr", strict=True)
    categories = [
        {"id": i, "name": name, "frequency": one, "image_count": 4 * i}
        for i, (name, one) in enumerate(frequencies, 1)
    ]
    contents = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(contents))
    (folder / "tags.json").write_text(json.dumps({"images": tagged, "categories": categories}))
    (folder / "base.txt").write_text("cat\nred ball\n")
    return folder


def small_detic_command(
    name: str, data: Path, folder: Path, *more: str, steps: int = 2
) -> list[str]:
    """Steps of a recipe with few channels on small images."""
    register_tiny_towers()
    config = find_recipe(name)()
    options = ["--model.pretrained=None", f"--model.name={VIT}", "--task.backbone=random"]
    options += ["--task.blocks", "1", "1", "1", "1", "--task.width=4", "--task.templates=name"]
    options += [f"--data.images={data / 'images'}", f"--data.boxes={data / 'boxes.json'}"]
    options += ["--data.image-px=64", "--data.batch-size=1", "--data.workers=0"]
    if "coco" in name:
        options.append(f"--data.classes={data / 'base.txt'}")
    else:
        options.append("--task.channels=8")
    if config.data.has_captions:
        options += [f"--data.captions={data / 'tags.json'}", "--data.pool=8"]
    options += [f"--schedule.steps={steps}", "--schedule.warmup-steps=1", "--engine.device=cpu"]
    options += ["--engine.precision=fp32", f"--run.folder={folder}", "--run.log-every=1"]
    return [name, *options, "--run.no-bar", "--run.no-tensorboard", *more]
