"""Detectors of Detic take other names, and come back from their folder."""

import pytest
import torch
from clim_models import TINY, create_model
from clim_models.detection import embed_class_set, open_detector, save_detector
from tiny_detic import tiny_c4, tiny_cascade

PICTURE = torch.arange(3 * 40 * 60).remainder(251).to(torch.uint8).reshape(3, 40, 60)


@pytest.mark.parametrize("build", [tiny_c4, tiny_cascade])
def test_a_folder_gives_the_same_detector_and_embeds_other_names(build, tmp_path):
    model = create_model(TINY, pretrained=None)
    names = ["cat", "dog", "bird"]
    classes = embed_class_set(model, names, base=names[:2], templates=["{}"])
    detector = build(classes).eval()
    with pytest.raises(ValueError, match="attach_text"):
        detector.with_vocabulary(["cow"])
    detector.attach_text(model)
    assert not any(name.startswith("text") for name in detector.state_dict())
    save_detector(detector, tmp_path / "run" / "model")

    again = open_detector(tmp_path / "run")
    assert type(again) is type(detector)
    assert again.options == detector.options
    assert again.names == detector.names
    assert again.classes.base == (0, 1)
    state = detector.state_dict()
    for name, value in again.state_dict().items():
        assert torch.equal(value, state[name]), name
    found, expected = again.detect([PICTURE])[0], detector.detect([PICTURE])[0]
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)

    others = [one.with_vocabulary(["cow", "dog"], templates=["{}"]) for one in (again, detector)]
    assert others[0].names == ("cow", "dog")
    assert others[0].classes.base == (1,)
    torch.testing.assert_close(others[0].classes.embeddings, others[1].classes.embeddings)
    assert not any(value.is_meta for value in others[0].state_dict().values())
    assert others[0].detect([PICTURE])[0].labels.max() <= 1


def test_a_folder_without_text_tower_still_detects(tmp_path):
    detector = tiny_c4().eval()
    save_detector(detector, tmp_path)
    again = open_detector(tmp_path)
    assert again.text is None
    assert torch.equal(again.detect([PICTURE])[0].boxes, detector.detect([PICTURE])[0].boxes)
