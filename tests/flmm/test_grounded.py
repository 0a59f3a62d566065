"""The whole path from an image and its phrases to masks: golden values, losses, gradients, steps of
training."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from clim_models import UNetHead
from clim_models.losses import mask_losses
from flmm.grounded import GroundedLMM, load_grounded
from flmm.heads.files import heads_from_released
from flmm.refiners.sam.weights import load_sam
from golden_lmms import (
    CASES,
    cases_about,
    cases_with,
    close_masks,
    decoder_heads,
    first_of,
    golden_grounded,
    golden_sam,
    golden_steps,
    phrase_rows,
    picture_of,
    released,
    sample_of,
)
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def embedded(golden):
    """Frozen SAM embeddings of golden images, each made once: `embedded(case, sample)`."""
    made = {}

    def embedding(case, name: str):
        file = case.meta["samples"][name]["file_name"]
        if file not in made:
            (made[file],) = golden_sam(case).embed([picture_of(case, name)])
        return made[file]

    return embedding


def load(golden, family: str):
    return golden("forward", f"flmm/{family}")


def features_of(model: GroundedLMM, case, names) -> list:
    return [model.lmm([sample_of(case, name)], merge=model.merge)[0] for name in names]


def losses(model: GroundedLMM, features, embeddings, targets) -> dict[str, torch.Tensor]:
    """The eight figures of the original under its names."""
    found = model.ground(features, embeddings)
    coarse = mask_losses([g.coarse for g in found], targets)
    refined = mask_losses([g.refined for g in found], targets)
    return {**coarse, **{f"sam_{name}": value for name, value in refined.items()}}


@pytest.mark.device
@pytest.mark.parametrize("family", CASES)
def test_golden_masks(golden, embedded, family):
    case = load(golden, family)
    model = golden_grounded(case)
    names = list(case.meta["samples"])
    with torch.no_grad():
        features = features_of(model, case, names)
        found = model.ground(features, [embedded(case, name) for name in names])
    for name, one, masks in zip(names, features, found, strict=True):
        if f"{name}__unet_out" in case.arrays:
            close_masks(model.mask_head(one.maps), case.tensor(f"{name}__unet_out"))
        close_masks(masks.coarse, case.tensor(f"{name}__pred_masks"))
        expected, step = case.strided(f"{name}__sam_pred_masks")
        close_masks(masks.refined[..., ::step, ::step], expected)
        width, height = case.meta["samples"][name]["image_size_wh"]
        assert masks.refined.shape[1:] == (height, width)


@pytest.mark.device
@pytest.mark.parametrize("family", CASES)
def test_golden_summed_states_and_text(golden, family):
    case = load(golden, family)
    model = golden_grounded(case)
    for name in case.meta["samples"]:
        (features,) = features_of(model, case, [name])
        for k, text in enumerate(model.text_embeddings(features)):
            torch.testing.assert_close(
                text, case.tensor(f"{name}__text_embeds_{k}"), atol=1e-4, rtol=1e-3
            )
        rows = phrase_rows(case, name)
        owners = case.tensor(f"{name}__merged_mask_ids")[rows]
        order = torch.argsort(owners, stable=True)
        if f"{name}__hidden_states" in case.arrays:
            expected = case.tensor(f"{name}__hidden_states")[rows[order]]
        else:
            expected = case.tensor(f"{name}__hidden_states_phrase_rows")[order]
        torch.testing.assert_close(
            model.sum_states(features.states), expected, atol=1e-4, rtol=1e-3
        )


@pytest.mark.device
@pytest.mark.parametrize("family", CASES)
def test_golden_losses_and_gradients(golden, embedded, family):
    case = load(golden, family)
    training = case.meta["training"]
    names = training.get("samples", list(case.meta["samples"]))
    model = golden_grounded(case).train()
    found = losses(
        model,
        features_of(model, case, names),
        [embedded(case, name) for name in names],
        [case.tensor(f"{name}__masks") for name in names],
    )
    for name, value in training["loss_dict"].items():
        # Accuracy and IoU count pixels beyond a threshold: rounding may turn a few of those that
        # lie on it.
        slack = {"rel": 1e-4, "abs": 1e-5} if "loss" in name else {"rel": 1e-3, "abs": 1e-3}
        assert found[name].item() == pytest.approx(value, **slack), name
    total = sum(value for name, value in found.items() if "loss" in name)
    assert total.item() == pytest.approx(training["total_loss"], rel=1e-4)
    total.backward()
    norms = {
        k: torch.tensor(-1.0 if v is None else v) for k, v in training["param_grad_l2"].items()
    }
    expected = heads_from_released(norms)
    assert set(expected) == set(model.trained_names())
    for name, parameter in model.heads.named_parameters():
        if name not in expected:
            assert parameter.grad is None
            continue
        wanted = max(expected[name].item(), 0)  # no gradient and one of zero are the same here
        norm = 0.0 if parameter.grad is None else parameter.grad.norm().item()
        assert norm == pytest.approx(wanted, rel=5e-3, abs=5e-6), name


@pytest.mark.device
@pytest.mark.parametrize("family", cases_about("training", "trajectory"))
def test_golden_trajectory(golden, embedded, family):
    case = load(golden, family)
    optim, steps = golden_steps(case)
    largest = optim.pop("clip_norm")
    names = list(case.meta["samples"])
    model = golden_grounded(case).train()
    features = features_of(model, case, names)
    embeddings = [embedded(case, name) for name in names]
    targets = [case.tensor(f"{name}__masks") for name in names]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, **optim)
    for step in steps:
        found = losses(model, features, embeddings, targets)
        total = sum(value for name, value in found.items() if "loss" in name)
        assert total.item() == pytest.approx(step["total"], rel=2e-3)
        if "grad_norm" not in step:
            continue
        optimizer.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, largest)
        assert norm.item() == pytest.approx(step["grad_norm"], rel=2e-2)
        optimizer.step()


@pytest.mark.device
@pytest.mark.parametrize("family", cases_with("merge_max__pred_masks"))
def test_golden_merge_max(golden, family):
    case = load(golden, family)
    model = golden_grounded(case, merge="max")
    (features,) = features_of(model, case, [first_of(case)])
    expected = case.tensor("merge_max__pred_masks")
    close_masks(model.coarse_masks(features)[: len(expected)], expected)


@pytest.mark.device
@pytest.mark.parametrize("family", cases_with("lmm_bf16__pred_masks"))
def test_golden_bfloat16_lmm_with_float32_heads(golden, family):
    case = load(golden, family)
    model = golden_grounded(case, torch.bfloat16)
    (features,) = features_of(model, case, [first_of(case)])
    expected = case.tensor("lmm_bf16__pred_masks")
    found = model.coarse_masks(features)[: len(expected)]
    assert found.dtype == torch.float32
    rounding = (case.tensor(f"{first_of(case)}__pred_masks")[: len(expected)] - expected).norm()
    assert (found - expected).norm() < 2 * rounding
    assert model.text_embeddings(features)[0].dtype == torch.float32


def test_golden_checkpoints_load_in_every_form(golden, tmp_path):
    case = load(golden, "llava")
    tensors = released(case)
    positions = "sam.model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    rounded = load_file(case.folder.parent / "sam" / "sam_tiny.safetensors")[
        positions.removeprefix("sam.model.")
    ]
    rounded = rounded.to(torch.bfloat16).float()
    without = {k: v for k, v in tensors.items() if k != positions}
    reference = golden_grounded(case)
    exact = reference.sam.prompt_encoder.shared_embedding.positional_embedding.clone()
    forms = {
        "flat": without,
        "nested": {"state_dict": without},
        "with_positions": {**without, positions: rounded},
    }
    for name, content in forms.items():
        torch.save(content, tmp_path / f"{name}.pth")
        model = empty(reference)
        model.load_heads(tmp_path / f"{name}.pth")
        for key, value in tensors_of(reference).items():
            assert torch.equal(tensors_of(model)[key], value), key
        found = model.sam.prompt_encoder.shared_embedding.positional_embedding
        assert torch.equal(found, rounded if name == "with_positions" else exact)
        again = empty(reference)
        again.load_heads(model.save_heads(tmp_path / f"{name}.safetensors"))
        assert torch.equal(again.sam.prompt_encoder.shared_embedding.positional_embedding, found)
    saved = load_file(tmp_path / "flat.safetensors")
    assert sorted(saved) == sorted(reference.trained_names())
    assert not any(name.startswith(("lmm.", "sam.image_encoder.")) for name in saved)


def test_golden_whole_models_load_from_files(golden, embedded, tmp_path):
    case = load(golden, "llava_next")
    reference = golden_grounded(case)
    load_sam(
        case.folder.parent / "sam" / "sam_tiny.safetensors", decoder_heads=decoder_heads(case)
    ).save_pretrained(tmp_path / "sam")
    torch.save(released(case), tmp_path / "heads.pth")
    model = load_grounded(reference.lmm, sam=tmp_path / "sam", heads=tmp_path / "heads.pth")
    for option in ("normalize_input", "upsample_input"):  # which the weights do not tell
        setattr(model.mask_head, option, getattr(reference.mask_head, option))
    features = features_of(model, case, [first_of(case)])
    with torch.no_grad():
        (found,), (expected,) = (
            m.ground(features, [embedded(case, first_of(case))]) for m in (model, reference)
        )
    torch.testing.assert_close(found.refined, expected.refined, atol=1e-5, rtol=1e-4)
    assert not model.training
    fresh = load_grounded(reference.lmm, sam=tmp_path / "sam")
    assert fresh.mask_head.predict.in_channels == 64
    torch.save({"text_proj.bias": torch.ones(2)}, tmp_path / "else.pth")
    with pytest.raises(ValueError, match="there is no mask head among"):
        load_grounded(reference.lmm, sam=tmp_path / "sam", heads=tmp_path / "else.pth")


def tensors_of(model: GroundedLMM) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.heads.named_parameters() if p.requires_grad}


def empty(like: GroundedLMM) -> GroundedLMM:
    """The same architecture with other heads; LMM and SAM's sizes from `like`."""
    model = deepcopy(like)
    for parameter in tensors_of(model).values():
        torch.nn.init.normal_(parameter)
    return model


def test_golden_wrong_checkpoints_are_refused(golden, tmp_path):
    case = load(golden, "llava")
    model = golden_grounded(case)
    tensors = released(case)
    missing = {k: v for k, v in tensors.items() if k != "text_proj.bias"}
    with pytest.raises(ValueError, match=r"missing \(1\): text_proj.bias"):
        model.load_heads(missing)
    longer = torch.ones(len(tensors["text_layer_weights"]) + 1)
    with pytest.raises(
        ValueError, match=rf"mis-shaped \(1\): text_layer_weights \({len(longer)},\) for"
    ):
        model.load_heads({**tensors, "text_layer_weights": longer})
    with pytest.raises(ValueError, match=r"unexpected \(1\): lmm.weight"):
        model.load_heads({**tensors, "lmm.weight": torch.ones(7)})
    with pytest.raises(FileNotFoundError):
        model.load_heads(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="trained entries, such as text_layer_weights"):
        model.save_heads(tmp_path / "x.safetensors", {})


def test_golden_several_images_in_one_step(golden, embedded):
    case = load(golden, "llava")
    model = golden_grounded(case)
    names = list(case.meta["samples"])
    samples, embeddings = [sample_of(case, n) for n in names], [embedded(case, n) for n in names]
    with torch.no_grad():
        together = model(samples, embeddings)
        for sample, embedding, found in zip(samples, embeddings, together, strict=True):
            (alone,) = model([sample], [embedding])
            close_masks(found.coarse, alone.coarse)
            close_masks(found.refined, alone.refined)


def test_golden_images_without_phrases_keep_a_gradient_path(golden, embedded):
    """Ranks with and without phrases must run the same backward pass."""
    case = load(golden, "llava")
    model = golden_grounded(case).train()
    sample = sample_of(case, first_of(case))
    nothing = replace(
        sample, text=replace(sample.text, phrase_ids=torch.full_like(sample.text.phrase_ids, -1))
    )
    (found,) = model([nothing], [embedded(case, first_of(case))])
    assert found.coarse.shape[0] == found.refined.shape[0] == 0
    sum(
        value
        for name, value in mask_losses([found.refined], [torch.zeros(0, 4, 4)]).items()
        if "loss" in name
    ).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    assert model.text_layer_weights.grad is not None
    assert next(model.mask_head.parameters()).grad is not None


def test_golden_heads_of_another_lmm_are_refused(golden):
    case = load(golden, "llava")
    model = golden_grounded(case)
    more = model.lmm.map_channels + 1
    with pytest.raises(ValueError, match=rf"takes {more} maps and this LMM has {more - 1}"):
        GroundedLMM(model.lmm, UNetHead(more, base=2), model.sam)
    with pytest.raises(ValueError, match="'mean', 'max'"):
        GroundedLMM(model.lmm, model.mask_head, model.sam, merge="sum")
