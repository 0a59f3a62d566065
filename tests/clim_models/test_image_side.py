"""The copy without a text tower sees images as the model does, and shares nothing with it."""

import pytest
import torch
from clim_models.image_side import copy_image_side


def trainable(model) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("kind", ["vit", "eva", "resnet", "timm_cls", "timm_efficientnet"])
def test_features_are_those_of_the_model_whose_weights_it_does_not_share(towers, kind):
    model = towers[kind]()
    model.freeze(unlocked_blocks=1)
    model.eval()
    alone = copy_image_side(model)
    side = 2 * model.stride
    images, boxes = torch.randn(2, 3, side, side), [torch.tensor([[0.0, 0.1, 0.8, 0.9]])] * 2
    with torch.no_grad():
        expected = model.encode_regions(images, boxes, outputs=("image", "boxes"))
        for p in model.parameters():
            p.mul_(1.5)
        found = alone.encode_regions(images, boxes, outputs=("image", "boxes"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    names = {
        name for name in model.state_dict() if name.startswith(("clip.visual.", "clip.logit_scale"))
    }
    assert alone.state_dict().keys() == names
    assert alone.training is model.training
    assert trainable(alone) == trainable(model)
    with pytest.raises(ValueError, match="no text tower"):
        alone.encode_text(torch.zeros(1, 77, dtype=torch.int64))


@pytest.mark.parametrize("kind", ["vit", "eva"])
def test_it_saves_the_memory_of_the_text_tower(towers, kind):
    model = towers[kind]()
    alone = copy_image_side(model)
    text = sum(
        p.nbytes
        for n, p in model.clip.named_parameters()
        if not n.startswith(("visual.", "logit_"))
    )
    whole, left = (sum(p.nbytes for p in m.parameters()) for m in (model, alone))
    assert text > 0
    assert left == whole - text
