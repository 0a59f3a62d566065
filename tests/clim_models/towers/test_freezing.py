"""Trainable parameter lists against golden case 09, and what freezing must guarantee."""

import pytest
import torch
from clim_models.checkpoints.layouts import to_open_clip
from tiny_towers import build_clip, build_eva, build_resnet, build_vit

BUILD = {"eva": build_eva, "vit": build_clip, "resnet": build_clip}


def ours(names: list[str]) -> set[str]:
    """Original parameter names -> those of a RegionModel."""
    return {
        f"clip.{k}" for k in to_open_clip({n: torch.zeros(()) for n in names}, text_prefix=False)
    }


@pytest.mark.parametrize("kind", ["eva", "vit", "resnet"])
def test_golden_trainable_lists(golden, kind):
    lock = golden("case09_lock").meta
    model = BUILD[kind](golden(lock["weights"][kind]))
    for k, expected in lock["models"][kind]["k"].items():
        names = set(model.freeze(unlocked_blocks=int(k)))
        if int(k) == 0:  # the originals unlock everything (EVA) or the attention pool (ResNet) here
            assert names == {"clip.logit_scale"}
        else:
            assert names == ours(expected["trainable"]), k


def test_golden_lock_counts_as_many_units_as_the_original(golden):
    lock = golden("case09_lock").meta
    for kind, build in BUILD.items():
        assert build(golden(lock["weights"][kind])).num_blocks == lock["models"][kind]["depth"]


@pytest.mark.parametrize("kind", ["eva", "resnet", "timm_cls"])
def test_dense_path_trains_only_what_gets_a_gradient(towers, kind):
    model = towers[kind]()
    model.freeze(unlocked_blocks=99, path="dense")
    side = 2 * model.stride
    boxes = [torch.tensor([[0.0, 0.1, 0.8, 0.9]])]
    (
        model.encode_boxes(torch.randn(1, 3, side, side), boxes).square() * torch.randn(1)
    ).sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    # The class token enters before the blocks, so through their attention it does reach the
    # patches.
    assert without == ["clip.logit_scale"]
    everything = set(model.freeze(unlocked_blocks=99))
    dense = set(model.freeze(unlocked_blocks=99, path="dense"))
    assert dense < everything or kind == "timm_cls"


@pytest.mark.parametrize("kind", ["resnet", "timm_efficientnet"])
def test_batch_norms_never_train_nor_update(towers, kind):
    model = towers[kind]()
    names = model.freeze(unlocked_blocks=99)
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    model.encode_image(torch.randn(2, 3, *model.image_size) * 3)
    assert before
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert not any(".bn" in n for n in names)
    assert model.training


def test_text_tower_and_projections_stay_frozen():
    model = build_vit()
    names = model.freeze(unlocked_blocks=99)
    assert {n.split(".")[1] for n in names} == {"logit_scale", "visual"}
    assert "clip.visual.proj" not in names
    assert not any("ln_post" in n for n in names)


def test_unused_units_of_resnets_follow_the_path():
    model = build_resnet()
    assert any("q_proj" in n for n in model.freeze(1))
    assert not any("q_proj" in n for n in model.freeze(1, path="dense"))


@pytest.mark.parametrize(
    ("blocks", "path", "message"), [(-1, "all", "unlocked_blocks=-1"), (1, "boxes", "path='boxes'")]
)
def test_wrong_options(blocks, path, message):
    with pytest.raises(ValueError, match=message):
        build_vit().freeze(blocks, path=path)
