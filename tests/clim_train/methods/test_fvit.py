"""F-ViT: the published settings against the golden optimisers, its data, and one step."""

import json
from dataclasses import replace

import pytest
import torch
from clim_data import DetectionBatch
from clim_data.streams import StreamOptions
from clim_eval import save_class_embeddings
from clim_models.detection import build_fvit, load_detector
from clim_train.config import TrainConfig
from clim_train.methods import METHODS
from clim_train.methods.fvit import FViTConfig, build_fvit_task
from clim_train.methods.fvlm import FVLMConfig
from clim_train.methods.method import BuildContext
from clim_train.methods.views import DetectionDataConfig, detection_loader, example_views
from clim_train.options.sections import EngineConfig, OptimConfig
from clim_train.recipes import find_recipe
from clim_train.schedule import learning_rate
from golden_detectors import FAMILY
from PIL import Image
from tiny_training import EVA, VIT, tiny_model

RECIPES = {
    "fvit_coco_evab16": "fvit_coco_b16",
    "fvit_coco_eval14": "fvit_coco_l14",
    "fvit_lvis_evab16": "fvit_lvis_b16",
    "fvit_lvis_eval14": "fvit_lvis_l14",
    "fvlm_coco_vitb16": "ovdet_vit_coco",
    "fvlm_lvis_vitb16": "ovdet_vit_lvis",
    "fvlm_lvis_rn50x64": "ovdet_rn50x64_lvis",
}


@pytest.mark.parametrize("name", RECIPES)
def test_golden_optimiser_and_rates(golden, name):
    about = golden("optim", FAMILY).meta[RECIPES[name]]
    entry = find_recipe(name)
    config, optimizer = entry(), about["optimizer"]
    assert config.optim.kind == optimizer["type"].lower()
    assert config.optim.lr == optimizer["lr"]
    assert list(config.optim.betas) == optimizer.get("betas", list(OptimConfig.betas))
    assert config.optim.momentum == optimizer.get("momentum", OptimConfig.momentum)
    assert config.optim.weight_decay == optimizer["weight_decay"]
    # One group, in which everything decays.
    assert config.optim.decay == "all"
    assert about["groups"] == 1
    assert config.optim.clip_norm == about["grad_clip"]["max_norm"]
    assert config.data.batch_size == about.get("samples_per_gpu", about.get("batch_per_gpu"))
    assert config.data.batch_size * entry.facts.gpus == about["base_batch_size"]

    curve, loop = about["curve"], about.get("train_cfg", about)
    assert config.schedule.steps == loop.get("max_iters")
    if config.schedule.steps is None:
        assert config.schedule.epochs == loop["max_epochs"]
    total = config.schedule.steps or config.schedule.epochs * curve["iters_per_epoch"]
    for step, rate in zip(curve["iteration"], curve["lr"], strict=True):
        found = learning_rate(step, total, config.optim, config.schedule)
        assert found == pytest.approx(rate, rel=1e-9), step


@pytest.fixture
def photos(tmp_path):
    images, boxes = [], []
    for i in range(3):
        Image.effect_noise((60, 50), 90).convert("RGB").save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 60, "height": 50})
        box = {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 6, 30, 30], "area": 900}
        boxes.append({**box, "iscrowd": 0})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    contents = {"images": images, "annotations": boxes, "categories": categories}
    (tmp_path / "boxes.json").write_text(json.dumps(contents))
    (tmp_path / "base.txt").write_text("cat\n")
    return tmp_path


def data_of(photos, **options):
    return DetectionDataConfig(
        images=str(photos), boxes=str(photos / "boxes.json"), image_px=48, workers=0, **options
    )


def test_base_classes_are_named_or_all_have_boxes(photos):
    stream = StreamOptions(batch_size=1)
    with pytest.raises(ValueError, match=r"\['dog'\] have no box .* --data.classes FILE"):
        detection_loader(data_of(photos), stream, 16)
    named = detection_loader(data_of(photos, classes=str(photos / "base.txt")), stream, 16)
    assert named.class_names == ["cat", "dog"]
    assert named.trained_names == ["cat"]
    with pytest.raises(ValueError, match=r"--data\.boxes FILE"):
        detection_loader(DetectionDataConfig(images=str(photos)), stream, 16)


def task_of(photos):
    data = data_of(photos, classes=str(photos / "base.txt"))
    context = BuildContext(
        engine=EngineConfig(device="cpu"),
        data=data,
        device=torch.device("cpu"),
        class_names=["cat", "dog"],
        trained_names=["cat"],
    )
    options = FViTConfig(blocks=(0, 0, 1, 1), templates="name")
    return build_fvit_task(options, tiny_model(EVA), context), data


def test_a_step_trains_the_detector_and_not_the_tower(photos, tmp_path):
    task, data = task_of(photos)
    assert task.model.classes.base == (0,)
    batch = next(iter(detection_loader(data, StreamOptions(batch_size=1), 16)))
    assert isinstance(batch, DetectionBatch)
    scalars = task.loss(batch)
    parts = ("loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox")
    torch.testing.assert_close(scalars["loss"], sum(scalars[name] for name in parts))
    scalars["loss"].backward()
    trained = task.trainable_parameters()
    assert not [name for name in trained if name.startswith("backbone.model.")]
    assert all(p.grad is not None for p in trained.values())

    task.save(tmp_path / "model", task.model.state_dict())
    assert load_detector(task.model, tmp_path / "model").layout == "clim"


def test_an_example_batch_trains(photos):
    task, _ = task_of(photos)
    assert task.loss(example_views(DetectionDataConfig(batch_size=1, image_px=48), 16))["loss"] > 0
    with pytest.raises(ValueError, match=r"task\.blocks"):
        FViTConfig(blocks=(1, 2))
    with pytest.raises(ValueError, match=r"task\.detector"):
        FViTConfig(detector="fvit-transfer")


@pytest.mark.parametrize(
    ("task", "masks", "message"),
    [
        (FViTConfig(detector="fvit-lvis-b16"), False, "use --data.masks with .*has a mask head"),
        (FVLMConfig(detector="fvlm-lvis-b16"), False, "use --data.masks with .*has a mask head"),
        (FViTConfig(), True, "use --data.no-masks with .*has no mask head"),
        (FVLMConfig(), True, "use --data.no-masks with .*has no mask head"),
    ],
)
def test_masks_are_read_where_there_is_a_mask_head(task, masks, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(task=task, data=DetectionDataConfig(masks=masks))
    TrainConfig(task=task, data=DetectionDataConfig(masks=not masks))


def test_a_category_without_embedding_is_named(photos, tmp_path):
    path = tmp_path / "classes.safetensors"
    save_class_embeddings(path, torch.randn(2, 16), ["cat", "background"], templates="name")
    data = data_of(photos, classes=str(photos / "base.txt"))
    context = BuildContext(
        engine=EngineConfig(device="cpu"),
        data=data,
        device=torch.device("cpu"),
        class_names=["cat", "dog"],
        trained_names=["cat"],
    )
    options = FViTConfig(blocks=(0, 0, 1, 1), embeddings=str(path))
    with pytest.raises(ValueError, match=r"no embedding of \['dog'\] .* `clim-eval embed`"):
        build_fvit_task(options, tiny_model(EVA), context)


def test_a_detector_of_other_classes_or_another_tower_is_not_loaded(photos, tmp_path):
    task, _ = task_of(photos)
    task.save(tmp_path / "model", task.model.state_dict())
    other = task.model.with_vocabulary(["cat", "dog", "bus"], templates=["{}"])
    with pytest.raises(ValueError, match=r"has 2 classes .* keep_classes=True"):
        load_detector(other, tmp_path / "model")

    classes = task.model.classes
    tower = build_fvit(
        tiny_model(VIT),
        classes,
        replace(task.model.options, blocks=(0, 0, 1, 2)),
        background=classes.embeddings[0],
    )
    with pytest.raises(ValueError, match="it has another tower"):
        load_detector(tower, tmp_path / "model")


@pytest.mark.parametrize("name", ["fvit_coco_evab16", "fvlm_coco_vitb16", "detic_coco_base"])
def test_zero_3_is_refused_before_anything_is_built(name):
    """Ranks without boxes would not gather the weights of heads that other ranks wait for."""
    config = find_recipe(name)()
    context = BuildContext(EngineConfig(zero_stage=3), config.data, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"engine\.zero_stage=3.*0, 1 or 2"):
        METHODS[config.task.name].build(config.task, None, context)
