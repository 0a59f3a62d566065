import pytest
import torch
import torch.nn.functional as F
from clim_eval.evaluators.retrieval import ImageTextRetrieval
from clim_eval.evaluators.zeroshot import ZeroShotClassification


def slow_recall(model, data, k):
    """Every image against every caption string, sorted, one query at a time."""
    images = torch.cat(
        [model.encode_image(model.normalize_pixels(image[None])) for image, _, _ in data]
    )
    captions = [captions for _, captions, _ in data]
    texts = sorted({caption for group in captions for caption in group})
    features = model.encode_text(model.tokenizer(texts))
    right_images = []
    for feature, group in zip(images, captions, strict=True):
        best = [texts[i] for i in (features @ feature).argsort(descending=True).tolist()[:k]]
        right_images.append(bool(set(best) & set(group)))
    right_texts = []
    for group in captions:
        for caption in group:
            best = (images @ features[texts.index(caption)]).argsort(descending=True).tolist()[:k]
            right_texts.append(any(caption in captions[i] for i in best))
    return sum(right_images) / len(right_images), sum(right_texts) / len(right_texts)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_recall_equals_a_slow_search(toy, batch_size):
    model, data = toy.ToyModel(), toy.Captioned(12)
    metrics = ImageTextRetrieval(model, batch_size=batch_size).run(data)
    with torch.no_grad():
        for k in (1, 5, 10):
            items = [data[i] for i in range(len(data))]
            assert (metrics[f"i2t.R@{k}"], metrics[f"t2i.R@{k}"]) == pytest.approx(
                slow_recall(model, items, k)
            )


def test_perfect_features_give_perfect_recall(toy):
    model = toy.ToyModel()
    table = F.normalize(torch.randn(6, 8), dim=1)
    model.encode_image = lambda pixels, normalize=True: table[
        (pixels[:, 0, 0, 0] * 255 + 127.5).round().long()
    ]
    model.encode_text = lambda tokens, normalize=True: table[tokens]
    model.tokenizer = lambda texts: torch.tensor([int(text[0]) for text in texts])
    data = [
        (torch.full((3, 8, 8), i, dtype=torch.uint8), [f"{i} one", f"{i} two"], i) for i in range(6)
    ]
    metrics = ImageTextRetrieval(model).run(data)
    # Both captions of a class have the same feature, and both are right for its image.
    assert set(metrics.values()) == {1.0}


def test_equal_features_are_never_recalled_by_luck(toy):
    model = toy.ToyModel()
    model.encode_image = lambda pixels, normalize=True: torch.ones(len(pixels), 4) / 2
    model.encode_text = lambda tokens, normalize=True: torch.ones(len(tokens), 4) / 2
    data = [(torch.zeros(3, 8, 8, dtype=torch.uint8), [f"caption {i}"], i) for i in range(5)]
    metrics = ImageTextRetrieval(model, batch_size=2).run(data)
    assert (metrics["i2t.R@1"], metrics["t2i.R@1"], metrics["t2i.R@5"]) == (0.0, 0.0, 1.0)


def test_one_caption_of_two_images_is_right_for_both(toy):
    model = toy.ToyModel()
    image = toy.Captioned(1)[0][0]
    metrics = ImageTextRetrieval(model).run([(image, ["same"], 1), (255 - image, ["same"], 2)])
    assert set(metrics.values()) == {1.0}


def test_images_without_captions_are_left_out_and_named(toy):
    data = [toy.Captioned(6)[i] for i in range(6)]
    retrieval = ImageTextRetrieval(toy.ToyModel())
    metrics = retrieval.run(data)
    assert retrieval.coverage[0].sentence() == "scored 6 of 6 images"
    blind = (torch.zeros(3, toy.SIDE, toy.SIDE, dtype=torch.uint8), [], 77)
    assert retrieval.run([data[0], blind, *data[1:]])["i2t.R@1"] == metrics["i2t.R@1"]
    assert retrieval.coverage[0].left_out.names == {"image without a caption": ["image 77"]}


def test_retrieval_mistakes_are_told(toy):
    retrieval = ImageTextRetrieval(toy.ToyModel())
    with pytest.raises(ValueError, match="list of captions"):
        retrieval.run([(toy.Captioned(1)[0][0], "one string", 5)])
    with pytest.raises(ValueError, match="nothing was scored"):
        retrieval.run(toy.Captioned(0))
    with pytest.raises(ValueError, match="workers=-1"):
        ImageTextRetrieval(toy.ToyModel(), workers=-1)


def test_zero_shot_equals_a_loop(toy):
    model, data, rows = toy.ToyModel(), toy.Labelled(15), toy.class_rows()
    metrics = ZeroShotClassification(model, rows, batch_size=4).run(data)
    top = []
    with torch.no_grad():
        for image, label in (data[i] for i in range(len(data))):
            scores = (
                F.normalize(rows, dim=1)
                @ model.encode_image(model.normalize_pixels(image[None]))[0]
            )
            top.append(scores.argsort(descending=True).tolist().index(label))
    assert metrics == {"top1": sum(r < 1 for r in top) / 15, "top5": sum(r < 5 for r in top) / 15}


def test_a_zero_shot_loader_must_name_its_images(toy):
    data = toy.Labelled(4)
    loader = torch.utils.data.DataLoader(data, batch_size=2, collate_fn=list)
    with pytest.raises(ValueError, match="image_id"):
        ZeroShotClassification(toy.ToyModel(), toy.class_rows()).run(loader)
