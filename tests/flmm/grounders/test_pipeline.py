"""`flmm.pipeline`: pictures of every kind in, masks with names and scores out."""

import http.server
import threading
from functools import partial

import flmm
import numpy as np
import pytest
import torch
from clim_data import BrokenSample
from clim_data.pixels import decode_segmentation
from clim_models.pipelines import coco_of_results
from flmm.grounders.batches import PhrasePreparer
from flmm.pictures.files import read_image
from tiny_grounding import save_tiny_grounded
from tiny_lmms import picture

PHRASES = ["a red car", "the sky"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    save_tiny_grounded(folder)
    return folder


@pytest.fixture(scope="module")
def find(folder):
    return flmm.pipeline("grounding", heads=folder / "heads", device="cpu")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(folder, address of what lies in it)"""
    folder = tmp_path_factory.mktemp("served")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_one_picture(find, tmp_path):
    image = picture(60, 90, seed=1)
    result = find(image, PHRASES)
    expected = flmm.ground_phrases(find.grounder.model, image, PHRASES)
    masks = (expected.refined > 0).numpy()
    found = [place for place, mask in enumerate(masks) if mask.any()]
    assert [region.label for region in result] == [PHRASES[place] for place in found]
    assert found
    for region, place in zip(result, found, strict=True):
        np.testing.assert_array_equal(region.mask, masks[place])
        assert region.score == pytest.approx(expected.scores[place].item(), abs=1e-5)
        x0, y0, x1, y1 = map(int, region.box)
        assert region.mask[y0:y1, x0:x1].sum() == region.mask.sum()
        assert result.labels[region.class_id] == region.label

    assert result.size == (60, 90)
    content = result.to_coco()
    mask = decode_segmentation(content["annotations"][0]["segmentation"], 60, 90)
    np.testing.assert_array_equal(mask, masks[found[0]])
    width, height = result.plot(tmp_path / "out.png").size
    assert (width % 90, height % 60) == (0, 0)  # enlarged by a whole factor
    assert width / 90 == height / 60


def test_pictures_of_every_kind(find, served):
    folder, address = served
    image = picture(60, 90, seed=1)
    image.save(folder / "a.png")
    array = np.array(image)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    kinds = [str(folder / "a.png"), folder / "a.png", f"{address}/a.png", image, array, tensor]
    results = find(kinds, PHRASES)
    for result in results:
        assert result.regions == results[0].regions
        for region, first in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(region.mask, first.mask)
    assert len(coco_of_results(results)["images"]) == 6
    with pytest.raises(FileNotFoundError, match=r"no picture at none.png"):
        find("none.png", PHRASES)


def test_lists_are_grounded_in_batches(find):
    images = [picture(*shape, seed=n) for n, shape in enumerate([(60, 90), (100, 40), (56, 56)])]
    wanted = [PHRASES, ["a tree"], ["the sky", "a tree"]]
    options = flmm.GroundingOptions(batch_size=2)
    batched = flmm.pipeline(model=find.grounder.model, options=options)
    for result, image, own in zip(batched(images, wanted), images, wanted, strict=True):
        alone = find(image, own)
        assert [region.label for region in result] == [region.label for region in alone]
        assert result.labels == ("a red car", "the sky", "a tree")
        for region, expected in zip(result, alone, strict=True):
            assert (region.mask != expected.mask).mean() < 1e-3
            assert region.score == pytest.approx(expected.score, abs=1e-3)


def test_supervision(find):
    pytest.importorskip("supervision", reason="clim-models[supervision] is not installed")
    result = find(picture(60, 90, seed=1), PHRASES)
    found = result.to_supervision(compact=False)
    np.testing.assert_array_equal(found.mask, [region.mask for region in result])
    assert found.data["class_name"].tolist() == [region.label for region in result]


def test_phrases_below_the_least_score_are_left_out(find):
    options = flmm.GroundingOptions(min_score=1.0)
    strict = flmm.pipeline(model=find.grounder, options=options)
    assert len(strict(picture(60, 90, seed=1), PHRASES)) == 0


def test_mistakes_end_with_the_fix(find, folder, tmp_path):
    with pytest.raises(ValueError, match="task='masks' is unknown: choose from grounding"):
        flmm.pipeline("masks")
    with pytest.raises(ValueError, match="pass heads=RUN"):
        flmm.pipeline("grounding")
    with pytest.raises(ValueError, match="heads, device and model contradict: pass the model"):
        flmm.pipeline(model=find.grounder, heads="x", device="cpu")
    alone = tmp_path / "heads.safetensors"
    alone.write_bytes((folder / "heads" / "heads.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"trained with: pass lmm$"):
        flmm.pipeline(heads=alone)
    with pytest.raises(ValueError, match="batch_size=0: pass at least 1"):
        flmm.GroundingOptions(batch_size=0)
    with pytest.raises(ValueError, match="precision='float32': choose from fp32, bf16, fp16"):
        flmm.GroundingOptions(precision="float32")
    with pytest.raises(ValueError, match="at least one phrase"):
        find(picture(60, 90), [])


def test_a_url_is_a_picture_for_the_commands(served):
    folder, address = served
    picture(60, 90, seed=2).save(folder / "b.png")
    assert read_image(f"{address}/b.png").tobytes() == read_image(folder / "b.png").tobytes()
    with pytest.raises(ValueError, match=r"cannot fetch .*none.png"):
        read_image(f"{address}/none.png")


def test_pictures_that_cannot_be_used_do_not_lose_the_others(find, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    pictures = [picture(60, 90, seed=1), tmp_path / "cut.png", picture(40, 50, seed=2)]
    phrases = [["a red car"], ["the sky"], ["the sky", "a red car"]]
    with pytest.warns(UserWarning, match="skipped 1 of 3 pictures: .*cut.png"):
        results = find(pictures, phrases)
    assert [bool(one.error) for one in results] == [False, True, False]
    for place in (0, 2):
        alone = find(pictures[place], phrases[place])
        assert [one.label for one in results[place]] == [one.label for one in alone]
    with pytest.raises(ValueError, match=r"cut\.png"):
        find(pictures[1], ["a red car"])
    strict = flmm.GroundingPipeline(find.grounder, flmm.GroundingOptions(on_error="raise"))
    with pytest.raises(ValueError, match=r"cut\.png"):
        strict(pictures, phrases)


def test_a_picture_that_the_lmm_cannot_take_is_skipped_too(find, monkeypatch):
    own = PhrasePreparer.__call__

    def refuse_small(self, number, image, *rest, **options):
        if image.height < 50:
            raise BrokenSample("image too small", "picture", "pass a larger one")
        return own(self, number, image, *rest, **options)

    monkeypatch.setattr(PhrasePreparer, "__call__", refuse_small)
    pictures = [picture(40, 50, seed=2), picture(60, 90, seed=1)]
    with pytest.warns(UserWarning, match="skipped 1 of 2 pictures: picture 0: image too small"):
        results = find(pictures, ["a red car"])
    assert results[0].error
    assert not results[1].error


@pytest.mark.parametrize("phrases", [5, [None], [["a car"], 5]])
def test_phrases_that_are_no_texts_are_refused(find, phrases):
    with pytest.raises(ValueError, match=r"phrases are .*pass texts"):
        find(picture(40, 50), phrases)
