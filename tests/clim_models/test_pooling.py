"""Pooling against slow, obvious versions."""

import pytest
import torch
from clim_models.pooling import (
    box_patch_masks,
    pack_regions,
    pool_boxes,
    pool_masks,
    unit_length,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import roi_align


def test_pool_boxes_is_roi_align_box_by_box():
    features = torch.randn(2, 5, 6, 9)
    boxes = [
        torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.0, 0.0, 1.0, 1.0]]),
        torch.tensor([[0.3, 0.3, 0.4, 0.35]]),
    ]
    rows = []
    for image, image_boxes in zip(features, boxes):
        for box in image_boxes:
            pixels = torch.cat([torch.zeros(1), box * torch.tensor([9.0, 6.0, 9.0, 6.0])])
            rows.append(roi_align(image[None], pixels[None], 1, 1.0, -1, True)[0, :, 0, 0])
    torch.testing.assert_close(pool_boxes(features, boxes), torch.stack(rows))


def test_pool_boxes_of_whole_cells_is_their_mean():
    features = torch.randn(1, 3, 4, 4)
    boxes = [torch.tensor([[0.25, 0.5, 0.75, 1.0]])]
    torch.testing.assert_close(
        pool_boxes(features, boxes)[0], features[0, :, 2:4, 1:3].mean((1, 2))
    )


def test_pool_masks_is_a_loop_over_masks():
    features = torch.randn(3, 4, 5, 7)
    masks = [torch.rand(2, 5, 7) > 0.5, torch.zeros(0, 5, 7), torch.rand(6, 5, 7) > 0.2]
    masks[2][3] = False
    rows = [
        (image * m).sum((1, 2)) / m.sum() if m.any() else torch.zeros(4)
        for image, image_masks in zip(features, masks)
        for m in image_masks
    ]
    torch.testing.assert_close(pool_masks(features, masks), torch.stack(rows))


def test_gradients_flow_through_both_poolings():
    features = torch.randn(1, 2, 4, 4, dtype=torch.float32, requires_grad=True)
    (
        pool_boxes(features, [torch.tensor([[0.0, 0.0, 0.5, 1.0]])]).sum()
        + pool_masks(features, [torch.ones(1, 4, 4)]).sum()
    ).backward()
    assert (features.grad[..., :2] > features.grad[..., 2:]).all()


@pytest.mark.parametrize(
    ("box", "rounding", "expected"),
    [
        ([0.0, 0.0, 0.5, 0.5], "nearest", (0, 2, 0, 2)),
        (
            [0.3, 0.3, 0.31, 0.9],
            "nearest",
            (1, 4, 1, 2),
        ),  # thinner than a patch: still owns the one under it
        ([0.3, 0.3, 0.31, 0.9], "truncate", (1, 3, 1, 1)),  # the original cuts to nothing
        ([0.13, 0.0, 0.87, 1.0], "nearest", (0, 4, 1, 3)),
        ([1.0, 1.0, 1.0, 1.0], "nearest", (3, 4, 3, 4)),
    ],
)
def test_box_patch_masks(box, rounding, expected):
    y0, y1, x0, x1 = expected
    wanted = torch.zeros(1, 4, 4, dtype=torch.bool)
    wanted[:, y0:y1, x0:x1] = True
    assert torch.equal(box_patch_masks(torch.tensor([box]), (4, 4), rounding), wanted)


@pytest.mark.device
def test_golden_box_patch_masks(golden):
    case = golden("case02_vit")
    expected = case.tensor("out/v1_box_masks_large")
    got = box_patch_masks(case.tensor("in/rois")[:, 1:], tuple(expected.shape[1:]), "truncate")
    assert torch.equal(got, expected.bool())


def test_pack_regions_keeps_order_and_drops_padding():
    rows = {
        "a": [torch.ones(2, 3, dtype=torch.bool), torch.ones(0, 3, dtype=torch.bool)],
        "b": [torch.ones(1, 3, dtype=torch.bool)] * 2,
    }
    packed = pack_regions(rows)
    features = torch.arange(packed.allowed[..., 0].numel()).view(2, -1, 1)
    split = packed.split(features)
    assert split["a"].flatten().tolist() == [0, 1]
    assert split["b"].flatten().tolist() == [2, 5]
    assert packed.allowed.all()


def test_shape_errors_name_the_fix():
    features = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"one .n_i, 4. tensor per image"):
        pool_boxes(features, torch.zeros(2, 1, 4))
    with pytest.raises(ValueError, match="resize the masks"):
        pool_masks(features, [torch.zeros(1, 8, 8)] * 2)
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        pool_boxes(features, [torch.tensor([[0.0, 0.0, float("nan"), 1.0]])] * 2)


@pytest.mark.parametrize("box", [[0.5, 0.5, 0.3, 0.3], [0.6, 0.1, 0.3, 0.9], [0.1, 0.6, 0.9, 0.3]])
def test_boxes_with_width_and_height_are_refused(box):
    """RoIAlign gives zeros for them, or ends with an error of its memory."""
    boxes = torch.tensor([[0.1, 0.1, 0.1, 0.9], box])
    with pytest.raises(ValueError, match=r"boxes\[0\]\[1\] is .* not x, y, width, height"):
        pool_boxes(torch.zeros(1, 3, 4, 4), [boxes])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_features_of_no_region_stay_zeros_in_every_dtype(dtype):
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 300.0]], dtype=dtype)
    found = unit_length(rows)
    expected = torch.tensor([[0.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    torch.testing.assert_close(found.float(), expected, rtol=torch.finfo(dtype).eps, atol=0)


class Copies(TorchDispatchMode):
    """Collects the copies between devices that Python would wait for."""

    def __init__(self):
        super().__init__()
        self.waiting = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        moves = func is torch.ops.aten._to_copy.default and kwargs.get("device") not in (
            None,
            args[0].device,
        )
        if moves and not kwargs.get("non_blocking", False):
            self.waiting.append(kwargs["device"])
        return func(*args, **kwargs)


@pytest.mark.parametrize("where", ["cuda", "cpu"])
def test_regions_never_wait_for_a_gpu(where):
    """On fake tensors, which know a device and have no values: wherever the regions are, no copy is
    waited for."""
    with FakeTensorMode(), Copies() as copies:
        feature_map = torch.empty(2, 8, 4, 6, device="cuda")
        boxes = [torch.empty(n, 4, device=where) for n in (3, 1)]
        masks = [torch.empty(n, 4, 6, dtype=torch.bool, device=where) for n in (3, 1)]
        for pooled in (pool_boxes(feature_map, boxes), pool_masks(feature_map, masks)):
            assert pooled.device == feature_map.device
            assert pooled.shape == (4, 8)
        assert box_patch_masks(boxes[0], (4, 6)).device == boxes[0].device
        assert not copies.waiting
        torch.tensor([1.0], device="cuda")  # a copy that waits is seen
        assert len(copies.waiting) == 1
