"""Compiled blocks give the same features and gradients. Code that torch makes for a real backend is
torch's to test: "aot_eager" traces everything and needs no compiler."""

import copy

import pytest
import torch
from clim_models.towers import compile_blocks

BOXES = [torch.tensor([[0.1, 0.1, 0.9, 0.8]]), torch.tensor([[0.0, 0.2, 0.5, 1.0]])]


def features_and_gradients(model, images):
    """Run every path of the tower; returns features by name, and the gradients of their sum."""
    model.zero_grad(set_to_none=True)
    found = {
        "image": model.encode_image(images),
        "dense": model.encode_dense(images),
        "boxes": model.encode_boxes(images, BOXES),
    }
    sum(value.square().sum() for value in found.values()).backward()
    return found, {n: p.grad for n, p in model.visual.named_parameters() if p.grad is not None}


# A look of torch.compile at its own inputs, which are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["eva", "vit"])
def test_compiled_blocks_give_the_same_features_and_gradients(towers, kind, checkpointing):
    model = towers[kind]()
    model.set_grad_checkpointing(checkpointing)
    images = torch.randn(2, 3, *model.image_size)
    wanted, wanted_gradients = features_and_gradients(model, images)

    names = list(model.state_dict())
    compile_blocks(model.tower, backend="aot_eager")
    assert list(model.state_dict()) == names
    assert all(block._compiled_call_impl is not None for block in model.tower.blocks)

    found, gradients = features_and_gradients(model, images)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradients, wanted_gradients, atol=1e-5, rtol=1e-4)
    torch._dynamo.reset()


def test_a_copy_of_a_compiled_model_is_not_compiled(towers):
    model = towers["eva"]()
    compile_blocks(model.tower, backend="aot_eager")
    twin = copy.deepcopy(model)
    assert all(block._compiled_call_impl is None for block in twin.tower.blocks)


def test_towers_without_blocks_are_refused(towers):
    with pytest.raises(ValueError, match="no transformer blocks to compile"):
        compile_blocks(towers["resnet"]().tower)
