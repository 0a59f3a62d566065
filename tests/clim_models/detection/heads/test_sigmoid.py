"""Independent classes and their losses, against the golden cases 01 and 06."""

import re

import pytest
import torch
import torch.nn.functional as F
from clim_models.detection.heads.sigmoid import (
    SigmoidClassifier,
    SigmoidRules,
    federated_classes,
    federated_keys,
    sigmoid_loss,
)
from golden_detectors import close
from golden_detic import FAMILY


def coco_classifier(case, **options):
    weight = case.tensor("sd/coco.fc_cls.weight")
    rules = SigmoidRules(case.meta["config"]["cls_temp"], start_bias=0.0, **options)
    classifier = SigmoidClassifier(weight.shape[1], weight.shape[0], rules)
    state = {"project.weight": weight, "project.bias": case.tensor("sd/coco.fc_cls.bias")}
    state["bias"] = case.tensor("sd/coco.cls_bias")
    classifier.load_state_dict(state | {"compare.temperature": torch.tensor(rules.temperature)})
    return classifier


def test_golden_classes_of_coco(golden):
    case = golden("case01_classifier", FAMILY)
    classifier = coco_classifier(case, bias_in_training_only=True)
    embeddings = case.tensor("sd/coco.cls_embeddings")
    pooled = case.tensor("in/roi").mean((2, 3))
    close(case, "out/coco/region_embedding", classifier.project(pooled))

    logits = classifier(pooled, embeddings)
    logits.retain_grad()
    close(case, "out/coco/logits_train", logits)
    weights = torch.tensor(case.meta["config"]["class_weight"])
    loss = sigmoid_loss(logits, case.tensor("in/labels"), weights, case.tensor("in/lw"))
    close(case, "out/coco/loss_cls", loss)
    loss.backward()
    close(case, "out/coco/grad_logits", logits.grad)
    close(case, "out/coco/grad_fc_cls_weight", classifier.project.weight.grad)
    close(case, "out/coco/grad_cls_bias", classifier.bias.grad)
    aligned = case.tensor("in/aligned")
    close(case, "out/coco/aligned_logits_train", classifier.logits(aligned, embeddings))

    classifier.eval()
    found = classifier(pooled, embeddings)
    close(case, "out/coco/logits_test", found)
    close(case, "out/coco/scores_test", found.sigmoid())
    found = classifier.logits(aligned, embeddings)
    close(case, "out/coco/aligned_logits_test", found)
    close(case, "out/coco/aligned_scores_test", found.sigmoid())


def test_golden_scores_have_the_bias_by_default(golden):
    case = golden("case01_classifier", FAMILY)
    classifier = coco_classifier(case).eval()
    pooled = case.tensor("in/roi").mean((2, 3))
    found = classifier(pooled, case.tensor("sd/coco.cls_embeddings"))
    close(case, "out/coco/logits_train", found)


def test_golden_classes_of_lvis(golden):
    case = golden("case01_classifier", FAMILY)
    columns = case.tensor("sd/lvis.zs_weight")
    width, inputs = case.arrays["sd/lvis.linear.weight"].shape
    rules = SigmoidRules(case.meta["config"]["norm_temperature"])
    classifier = SigmoidClassifier(inputs, width, rules)
    classifier.project.load_state_dict(case.under("sd/lvis.linear."))
    x = case.tensor("in/zx")
    close(case, "out/lvis/embedding", classifier.project(x))
    close(case, "out/lvis/logits", classifier(x, columns[:, :-1].T))
    vocabulary = F.normalize(case.tensor("in/vocab"), dim=1)
    close(case, "out/lvis/logits_vocab", classifier(x, vocabulary)[:, :-1])
    assert not columns[:, -1].any()

    # The sidecar says: the same with use_bias=NUMBER.
    about = case.meta["keys"]["out/lvis/logits_bias"]["description"]
    bias = float(re.search(r"use_bias=(-?[\d.]+)", about).group(1))
    biased = SigmoidClassifier(inputs, width, SigmoidRules(rules.temperature, bias)).eval()
    biased.project.load_state_dict(case.under("sd/lvis.linear."))
    close(case, "out/lvis/logits_bias", biased(x, columns[:, :-1].T))


def keys_of(draw, classes):
    """Keys of which the classes of a draw of the original are the smallest."""
    keys = torch.ones(classes)
    keys[draw[1]] = 0
    return keys


@pytest.mark.parametrize("amount", ["few", "many"])
def test_golden_federated_loss(golden, amount):
    case = golden("case06_fedloss", FAMILY)
    number = case.meta["config"]["fed_loss_num_cat"]
    labels = case.tensor(f"in/labels_{amount}")
    classes = case.meta["config"]["num_classes"]
    # The original was asked twice: for the loss, and for the list of classes.
    of_loss, of_list = case.meta["data"]["draws"]
    asked = federated_classes(labels, keys_of(of_loss, classes), number, count_background=True)
    if amount == "few":
        listed = case.tensor("out/few/classes")
        expected = torch.zeros(classes + 1)
        expected[listed[listed < classes]] = 1
        keys = keys_of(of_list, classes)
        found = federated_classes(labels, keys, number, count_background=True)
        assert torch.equal(found, expected)

    logits = case.tensor("in/logits").clone().requires_grad_()
    loss = sigmoid_loss(logits, labels, asked)
    close(case, f"out/{amount}/loss", loss)
    loss.backward()
    close(case, f"out/{amount}/grad", logits.grad)


def test_golden_classes_are_drawn_by_the_root_of_their_images(golden):
    case = golden("case06_fedloss", FAMILY)
    counts = case.tensor("in/image_count").float()
    power = case.meta["config"]["fed_loss_freq_weight"]
    close(case, "out/freq_weight", counts**power)
    draws = 4000
    first = torch.stack([federated_keys(counts, power) for _ in range(draws)]).argmin(1)
    found = first.bincount(minlength=len(counts)) / draws
    expected = counts**power / (counts**power).sum()
    # Five standard deviations.
    assert ((found - expected).abs() < 5 * (expected / draws) ** 0.5 + 1e-3).all()


def test_golden_probabilities_of_further_classes(golden):
    case = golden("case06_fedloss", FAMILY)
    counts, labels = case.tensor("in/image_count"), case.tensor("in/labels_few")
    present = labels.unique()
    draws, found = 2000, torch.zeros(len(counts) + 1)
    for _ in range(draws):
        keys = federated_keys(counts, case.meta["config"]["fed_loss_freq_weight"])
        found += federated_classes(labels, keys, len(present) + 1, count_background=True)
    found[present] = 0
    assert found.sum() == draws
    expected = case.tensor("out/prob") / case.tensor("out/prob").sum()
    # Five standard deviations.
    assert ((found / draws - expected).abs() < 5 * (expected / draws) ** 0.5 + 1e-3).all()


def test_the_background_is_no_class_of_the_sample():
    labels, keys = torch.tensor([4, 1]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert federated_classes(labels, keys, 3).tolist() == [1, 1, 1, 0, 0]
    assert federated_classes(labels, keys, 3, count_background=True).tolist() == [1, 1, 0, 0, 0]


def test_boxes_of_the_background_are_negatives_of_all_columns():
    logits = torch.tensor([[0.5, -1.0, 3.0]])
    found = sigmoid_loss(logits, torch.tensor([2]), torch.ones(3))
    torch.testing.assert_close(found, F.softplus(logits).sum())


def test_classes_without_images_are_never_drawn():
    keys = federated_keys(torch.tensor([5, 0, 7, 0]))
    asked = federated_classes(torch.tensor([3]), keys, 10)
    assert asked.tolist() == [1, 0, 1, 1, 0]


def test_options_without_effect_are_refused():
    with pytest.raises(ValueError, match="without a bias"):
        SigmoidRules(bias_in_training_only=True)
