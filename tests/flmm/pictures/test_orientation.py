"""Pictures that a camera has turned: read upright, once, and masks turned back."""

import numpy as np
import pytest
import torch
from clim_data.pixels import boxes_of_masks
from flmm.dialogue.answers import ask, ground_answer
from flmm.grounders.heads import HeadsGrounder, ground_phrases
from flmm.grounders.images import ground
from flmm.pictures.files import read_image
from flmm.pictures.orientation import as_stored, orientation_of, turn_back, turn_places_back
from PIL import Image
from tiny_lmms import picture
from tiny_web import QUESTION, first_words, speaking_demo

ORIENTATION = 0x0112


def turned(image: Image.Image, orientation: int, path) -> Image.Image:
    """The same pixels, opened from a file with this orientation."""
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    image.save(path, exif=exif)
    return Image.open(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_lie_on_the_stored_pixels(orientation, tmp_path):
    stored = np.zeros((4, 6, 3), dtype=np.uint8)
    stored[1, 4] = 255
    opened = turned(Image.fromarray(stored), orientation, tmp_path / "a.png")
    upright = read_image(opened)
    assert upright.size == ((4, 6) if orientation >= 5 else (6, 4))
    assert read_image(upright).tobytes() == upright.tobytes()  # not turned twice
    assert read_image(tmp_path / "a.png").tobytes() == upright.tobytes()
    bright = torch.from_numpy(np.asarray(upright)[..., 0] > 0)
    back = turn_back(bright, orientation_of(opened))
    assert back.tolist() == (stored[..., 0] > 0).tolist()
    assert read_image(as_stored(opened)).size == (6, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_points_turn_with_the_masks(orientation):
    upright = torch.zeros(5, 9, dtype=torch.bool)
    upright[1:4, 6:8] = True
    box = boxes_of_masks(turn_back(upright, orientation)[None])[0][0]
    places = ((6.0, 1.0, 8.0, 4.0), (0.0, 0.0, 0.0, 0.0))
    turned, corner = turn_places_back(places, (5, 9), orientation)
    assert turned == tuple(box.tolist())
    assert corner[:2] == corner[2:]


@pytest.fixture(scope="module")
def model():
    return speaking_demo().model


def test_a_path_and_an_opened_picture_show_the_lmm_the_same(model, tmp_path):
    opened = turned(picture(40, 80), 6, tmp_path / "a.png")
    from_file = ground_phrases(model, tmp_path / "a.png", ["a dog"])
    in_memory = ground_phrases(model, opened, ["a dog"])
    assert from_file.refined.shape == (1, 80, 40)
    assert in_memory.refined.shape == (1, 40, 80)
    torch.testing.assert_close(turn_back(from_file.refined, 6), in_memory.refined, rtol=0, atol=0)
    torch.testing.assert_close(turn_back(from_file.coarse, 6), in_memory.coarse, rtol=0, atol=0)

    answer = ask(model.lmm, opened, QUESTION, max_new_tokens=6)
    assert answer.text == ask(model.lmm, tmp_path / "a.png", QUESTION, max_new_tokens=6).text
    found = ground_answer(model, opened, answer, chunker=first_words)
    assert found.masks.refined.shape[1:] == (40, 80)
    again = HeadsGrounder(model).ground_answer(opened, answer, found.spans)
    torch.testing.assert_close(again.masks, found.masks.refined, rtol=0, atol=0)


def test_arrays_are_pictures(model):
    image = picture(40, 60)
    expected = ground(image, ["a dog"], model)
    np.testing.assert_array_equal(ground(np.asarray(image), ["a dog"], model), expected)
    assert read_image(np.zeros((4, 6), dtype=np.uint8)).mode == "RGB"
    for wrong in (
        np.zeros((4, 6, 3)),
        np.zeros((3, 4, 6), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match=r"is no picture: pass uint8 \(H, W, 3\)"):
            read_image(wrong)
