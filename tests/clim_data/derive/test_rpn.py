import pickle
from functools import partial

import pytest
import torch
from clim_data.commands.main import main
from clim_data.derive.proposal_boxes import BoxChoice
from clim_data.derive.rpn import RpnBoxes, default_device
from clim_data.pixels.decode import pixels
from PIL import Image
from torchvision.models import detection

DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"
small = partial(
    getattr(detection, DETECTOR), min_size=64, max_size=128
)  # sides of images, for the sake of time


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A detector of three classes with random weights, and the file of its state dict."""
    torch.manual_seed(0)
    model = small(weights=None, weights_backbone=None, num_classes=3).eval()
    with torch.no_grad():  # a random network is nearly blind: let positions differ
        model.rpn.head.cls_logits.weight.mul_(100)
    path = tmp_path_factory.mktemp("weights") / "detector.pth"
    torch.save(model.state_dict(), path)
    return model, path


@pytest.fixture
def photos(images, monkeypatch):
    monkeypatch.setattr(detection, DETECTOR, small)
    return [Image.fromarray(images.pixels(seed, 60, 90)) for seed in range(3)]


def test_the_boxes_are_those_of_the_rpn_with_their_scores(tiny, photos):
    model, path = tiny
    found = RpnBoxes(DETECTOR, weights=path, device="cpu")(photos[:1])
    with torch.no_grad():
        batch, _ = model.transform([pixels(photos[0]).float() / 255])
        features = model.backbone(batch.tensors)
        (proposals,), _ = model.rpn(batch, features)
        scores, _ = model.rpn.head(list(features.values()))
    ((boxes, objectness),) = found
    scale = torch.tensor([90, 60, 90, 60]) / torch.tensor(batch.image_sizes[0]).flip(0).repeat(2)
    torch.testing.assert_close(torch.from_numpy(boxes), proposals * scale, rtol=1e-4, atol=1e-3)
    every = torch.cat([level.flatten() for level in scores]).sigmoid()
    nearest = (torch.from_numpy(objectness)[:, None] - every[None]).abs().min(1).values
    assert nearest.max() < 1e-5
    assert (objectness[:-1] >= objectness[1:]).all()
    assert len(boxes) == len(objectness) > 20


def test_a_batch_gives_what_single_images_give_and_choices_follow(tiny, photos):
    finder = RpnBoxes(DETECTOR, weights=tiny[1], device="cpu", batch_size=3)
    for (boxes, scores), photo in zip(finder(photos), photos):
        ((alone, alone_scores),) = finder([photo])
        torch.testing.assert_close(
            torch.from_numpy(boxes), torch.from_numpy(alone), rtol=1e-3, atol=1e-2
        )
        torch.testing.assert_close(
            torch.from_numpy(scores), torch.from_numpy(alone_scores), rtol=1e-4, atol=1e-5
        )
        kept, _ = BoxChoice(top=5)(boxes, scores, (60, 90))
        assert kept.shape == (5, 4)


def test_the_command_searches_a_folder(tiny, tmp_path, photos, capsys):
    (tmp_path / "photos").mkdir()
    for i, photo in enumerate(photos):
        photo.save(tmp_path / "photos" / f"{i}.jpg")
    command = [
        "proposals",
        "--images",
        str(tmp_path / "photos"),
        "--out",
        str(tmp_path / "boxes.json"),
    ]
    options = [
        "--method",
        "rpn",
        "--detector",
        DETECTOR,
        "--weights",
        str(tiny[1]),
        "--device",
        "cpu",
        "--top",
        "4",
    ]
    assert (
        main([*command, *options, "--workers", "2", "--batch-size", "2", "--part-images", "3"]) == 0
    )
    assert "12 boxes in 3 images" in capsys.readouterr().out


def test_checkpoints_of_other_layouts_are_unpacked(tiny, photos, tmp_path):
    state = {f"module.{key}": value for key, value in tiny[0].state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "checkpoint.pth")
    ((boxes, _),) = RpnBoxes(DETECTOR, weights=tmp_path / "checkpoint.pth", device="cpu")(
        photos[:1]
    )
    ((same, _),) = RpnBoxes(DETECTOR, weights=tiny[1], device="cpu")(photos[:1])
    assert (boxes == same).all()


class Malicious:
    def __reduce__(self):
        return eval, ("open('ran', 'w')",)


def test_weights_that_do_not_fit_are_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="detector='yolo' is not known"):
        RpnBoxes("yolo")
    with pytest.raises(FileNotFoundError, match="no weights file"):
        RpnBoxes(DETECTOR, weights="none.pth")
    state = tiny[0].state_dict()
    state["rpn.more"] = state.pop("rpn.head.cls_logits.bias")
    state["rpn.head.bbox_pred.bias"] = torch.zeros(3)
    torch.save(state, "other.pth")
    with pytest.raises(
        ValueError,
        match=r"1 missing: rpn\.head\.cls_logits\.bias; 1 unexpected: rpn\.more; "
        r"1 of another shape: rpn\.head\.bbox_pred\.bias\): choose",
    ):
        RpnBoxes(DETECTOR, weights="other.pth")
    with open("evil.pth", "wb") as stream:
        pickle.dump(Malicious(), stream)
    with pytest.raises(ValueError, match="is no state dict of tensors"):
        RpnBoxes(DETECTOR, weights="evil.pth")
    assert not (tmp_path / "ran").exists()


def test_weights_that_cannot_be_downloaded_are_named_with_the_place_to_put_them(
    tmp_path, monkeypatch
):
    from urllib.error import URLError

    def unreachable(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        ValueError,
        match=r"no network.*download https://.*\.pth elsewhere and put it into .*checkpoints",
    ):
        RpnBoxes(DETECTOR)


def test_each_process_of_a_launcher_has_its_own_gpu(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device() == "cuda:3"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == "cpu"
