"""Boxes and points as prompts of every SAM: against the library, and several places of a phrase."""

import copy

import pytest
import torch
from flmm import SamRefiner
from flmm.refiners.sam.geometry import masks_to_image
from library_sams import (
    library_embeddings,
    picture,
    processor_of,
    read_what_the_transformer_wrote,
)
from tiny_sams import SAMS, tiny
from tolerance import float32_sum

CLOSE = {"atol": float32_sum(1000), "rtol": 1e-4}
SIZES = [(90, 120), (75, 50)]
BOXES = [[5.0, 8, 25, 28.5], [0, 0, 20, 10], [12.25, 3, 30, 30]]
POINTS = [[12.0, 20], [25.5, 4]]


@pytest.fixture(scope="module", params=SAMS)
def pair(request):
    """Name, refiner, and the same model as transformers runs it."""
    model = tiny(request.param).eval()
    if request.param == "sam_hq":
        read_what_the_transformer_wrote(model)
    return request.param, SamRefiner(copy.deepcopy(model), use_text=False).eval(), model


def library_places(name, model, refiner, image, place):
    """Low-resolution masks (K, m, m) and scores (K,) of a box or a point by the library alone."""
    inputs = library_embeddings(refiner, image)
    processor = processor_of(name, refiner.square.edge)
    points = len(place) == 2
    prompt = {"input_points": [[[place]]]} if points else {"input_boxes": [[place]]}
    given = processor(images=image, **prompt, return_tensors="pt")
    name = next(iter(prompt))
    prompts = {name: given[name].float()}
    if points:
        prompts["input_labels"] = torch.ones(1, 1, 1, dtype=torch.int32)
    found = model(**inputs, **prompts, multimask_output=points)
    return found.pred_masks[0, 0], found.iou_scores[0, 0]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["boxes", "points"])
def test_places_of_several_images_equal_the_library_one_by_one(pair, kind):
    name, refiner, model = pair
    images = [picture(size, seed) for seed, size in enumerate(SIZES)]
    places = BOXES if kind == "boxes" else POINTS
    wanted = [[torch.tensor([place]) for place in places], [torch.tensor([places[0]])]]
    found = refiner.refine_places(images, wanted)
    for image, of_image, masks in zip(images, wanted, found, strict=True):
        size = (image.height, image.width)
        for number, (place,) in enumerate(of_image):
            low_res, scores = library_places(name, model, refiner, image, place.tolist())
            best = int(scores.argmax())
            full = masks_to_image(low_res[best][None], size, square=refiner.square)[0]
            torch.testing.assert_close(masks.masks[number], full, **CLOSE)
            torch.testing.assert_close(masks.ious[number], scores[best].clamp(0, 1), **CLOSE)


@torch.no_grad()
def test_a_phrase_with_several_places_has_the_union_of_their_masks(pair):
    _, refiner, _ = pair
    image = picture(SIZES[0])
    (alone,) = refiner.refine_places([image], [[torch.tensor([box]) for box in BOXES]])
    nothing, points = torch.zeros(0, 4), torch.tensor(POINTS)
    (joined,) = refiner.refine_places([image], [[torch.tensor(BOXES), nothing, points]])
    assert joined.masks.shape == (3, *SIZES[0])
    assert (joined.masks[0] >= alone.masks.amax(0) - CLOSE["atol"]).all()
    torch.testing.assert_close(joined.ious[0], alone.ious.mean())
    assert not (joined.masks[1] > 0).any()
    assert joined.ious[1] == 0
    assert joined.masks[2].std() > 0
