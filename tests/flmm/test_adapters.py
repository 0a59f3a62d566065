"""Every family on a tiny random model: maps against eager attention, and where they lie on the
image."""

import pytest
import torch
from clim_models import UNetHead
from flmm import GroundedLMM, Sample, SamRefiner, TokenizedText, load_lmm
from flmm.attention.rows import ATTENTION_NAME
from flmm.commands.main import main
from PIL import Image
from tiny_grounding import tiny_sam
from tiny_lmms import FAMILIES, IMAGE_ID, picture, sample, tiny_lmm
from todays_lmms import TODAY, own_processor, processor_text, todays_lmm

SIZES = [(60, 90), (100, 40)]  # (height, width)
NAMES = [*FAMILIES, *TODAY]


def lmm_of(name):
    return todays_lmm(name) if name in TODAY else tiny_lmm(name)


def eager_maps(lmm, one) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, L * H, t) attention of one sample from whole matrices, and (L, T, D) states of its phrase
    tokens."""
    layout = lmm.family.layout(one.image)
    text = one.text.expand(IMAGE_ID, [layout.ids(IMAGE_ID, lmm.tokenizer)])
    lmm.language_model.set_attn_implementation("eager")
    inputs = lmm._inputs([one.image], text.input_ids[None], [text.prompt_tokens])
    with torch.no_grad():
        output = lmm._parts.core(
            **inputs, output_attentions=True, output_hidden_states=True, use_cache=False
        )
    lmm.language_model.set_attn_implementation(ATTENTION_NAME)
    columns = text.input_ids == IMAGE_ID
    attention = torch.cat([layer[0] for layer in output.attentions])  # (L * H, S, S)
    phrases = [text.phrase_ids == k for k in range(text.phrases)]
    maps = torch.stack([attention[:, p][:, :, columns].mean(1) for p in phrases])

    order = torch.cat([p.nonzero().flatten() for p in phrases])
    states = []
    for layer, found in zip(lmm.language_model.layers, output.hidden_states[1:], strict=True):
        if hasattr(layer, "self_attn"):  # not one of the linear layers of a hybrid model
            states.append(found[0][order])
    return maps, torch.stack(states)


@pytest.mark.parametrize("name", NAMES)
def test_batch_agrees_with_eager_attention_of_each_image(name):
    lmm = lmm_of(name)
    samples = [
        sample(lmm, picture(*size, seed=i), phrases=2 + i, seed=i)
        for i, size in enumerate([*SIZES, (30, 30)])
    ]
    for one, found in zip(samples, lmm(samples), strict=True):
        maps, states = eager_maps(lmm, one)
        torch.testing.assert_close(found.maps, found.layout.arrange(maps), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.states, states, atol=1e-4, rtol=1e-4)
        assert found.maps.shape[:2] == (one.text.phrases, lmm.map_channels)
        assert found.states.shape == (lmm.layers, sum(found.lengths), lmm.hidden_size)


@pytest.mark.parametrize("size", SIZES, ids=["wide", "tall"])
@pytest.mark.parametrize("name", NAMES)
def test_a_spot_in_the_image_is_found_in_its_cells(name, size):
    """Tokens whose features change when a spot is painted must lie where the spot is, in every
    grid."""
    lmm = lmm_of(name)
    height, width = size
    for down, across in ((0.25, 0.75), (0.7, 0.2)):
        plain = picture(height, width)
        painted = plain.copy()
        spot = Image.new("RGB", (width // 5, height // 5), "white")
        painted.paste(
            spot, (int(across * width) - spot.width // 2, int(down * height) - spot.height // 2)
        )
        features = [image_features(lmm, image) for image in (plain, painted)]
        layout = lmm.family.layout(lmm.family.prepare(plain))
        assert len(features[0]) == layout.tokens
        change = (features[1] - features[0]).norm(dim=-1)  # (t,)
        for tokens in layout.grids:
            grid = layout.crop(change[tokens])
            rows, columns = grid.shape
            weights = (grid - grid.median()).clamp(min=0) ** 2
            y = ((torch.arange(rows) + 0.5) / rows * weights.sum(1)).sum() / weights.sum()
            x = ((torch.arange(columns) + 0.5) / columns * weights.sum(0)).sum() / weights.sum()
            assert abs(y - down) < 0.5 / rows + 0.1
            assert abs(x - across) < 0.5 / columns + 0.1


def image_features(lmm, image) -> torch.Tensor:
    """(t, D) what the model puts in place of the image's tokens."""
    prepared = lmm.family.prepare(image)
    ids = torch.full((1, lmm.family.layout(prepared).tokens), IMAGE_ID)
    inputs = lmm.family.model_inputs([prepared], ids)
    inputs["pixel_values"] = inputs["pixel_values"].float()
    for of_text in ("mm_token_type_ids", "token_type_ids", "image_num_crops"):
        inputs.pop(of_text, None)
    core = getattr(lmm.model, "model", lmm.model)
    if "llama4" in lmm.model.config.model_type:  # transformers 5.17 has no default for it
        inputs["vision_feature_select_strategy"] = "default"
    with torch.no_grad():
        if hasattr(core, "vision"):
            return core.vision(**inputs).flatten(0, 1)
        output = core.get_image_features(**inputs, return_dict=True)
    found = output.last_hidden_state if core is lmm.model else output.pooler_output
    return torch.cat(list(found)).flatten(0, -2)


@pytest.mark.parametrize("name", NAMES)
def test_generated_tokens_have_the_features_of_teacher_forcing(name):
    lmm = lmm_of(name)
    one = sample(lmm, picture(*SIZES[0]), phrases=0)
    answer = lmm.generate([one.image], one.text.input_ids, max_new_tokens=5)
    assert answer.maps.shape == (
        len(answer.ids) - 1,
        lmm.map_channels // lmm.family.grids,
        answer.layout.tokens,
    )
    said = answer.ids[:-1]
    ids = torch.cat([one.text.input_ids, said])
    owners = torch.cat([one.text.phrase_ids, torch.zeros_like(said)])
    text = type(one.text)(ids, owners, one.text.prompt_tokens)
    for merge in ("mean", "max"):
        (forced,) = lmm([type(one)(one.image, text)], merge=merge)
        found = answer.phrases([(0, len(said))], merge=merge)
        torch.testing.assert_close(found.maps, forced.maps, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.states, forced.states, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"\(0, 9\).*not in the answer's"):
        answer.phrases([(0, 9)])


# numpy deprecates how GLM-4V's processor copies.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
# And how InternVL's processor of transformers 5.17 counts.
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept")
@pytest.mark.parametrize("size", [*SIZES, (30, 30)], ids=["wide", "tall", "small"])
@pytest.mark.parametrize("name", TODAY)
def test_the_lmm_is_fed_as_its_own_processor_and_generate_feed_it(name, size):
    """Also where both ways of computing attention would be wrong alike: kinds of tokens, marks of
    rows and tiles, positions."""
    lmm = todays_lmm(name)
    processor = own_processor(name, lmm.family.processor)
    style, asked = lmm.family.style, "what is it?"
    image = picture(*size)
    theirs = processor(
        images=[image], text=[processor_text(name, style, asked)], return_tensors="pt"
    )
    theirs.pop("labels", None)
    theirs["pixel_values"] = theirs["pixel_values"].float()  # Llama 4's are bfloat16

    prompt = torch.tensor(lmm.tokenizer.encode(style.prompt(asked)))
    prepared = lmm.family.prepare(image)
    whole = TokenizedText(prompt, torch.full_like(prompt, -1), len(prompt))
    ids = lmm._expand_image_tokens(whole, lmm.family.layout(prepared)).input_ids
    ours = lmm._inputs([prepared], ids[None], [len(ids)])
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    assert ours.keys() == theirs.keys() - {"attention_mask"}
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key].to(value.dtype), atol=1e-6, rtol=0)

    with torch.no_grad():
        answer = lmm.model.generate(**theirs, max_new_tokens=6, do_sample=False)
        states = lmm._parts.core(**theirs, output_hidden_states=True).hidden_states[-1][0, -1]
    found = lmm.generate([prepared], prompt, max_new_tokens=6)
    assert found.ids.tolist() == answer[0, len(ids) :].tolist()
    asked_last = TokenizedText(ids, torch.arange(len(ids)) // (len(ids) - 1) - 1, len(ids))
    (features,) = lmm([Sample(prepared, asked_last)])
    torch.testing.assert_close(features.states[-1, 0], states, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TODAY)
def test_a_folder_of_the_family_grounds_phrases_from_the_command_line(name, tmp_path, capsys):
    lmm = todays_lmm(name)
    processor = own_processor(name, lmm.family.processor)
    processor.save_pretrained(tmp_path / "lmm")
    lmm.family.processor.save_pretrained(tmp_path / "lmm")
    lmm.model.save_pretrained(tmp_path / "lmm")
    sam = tiny_sam()
    sam.save_pretrained(tmp_path / "sam")
    head = UNetHead(lmm.map_channels, base=2, upsample_input=16)
    GroundedLMM(lmm, head, SamRefiner(sam)).save_heads(tmp_path / "heads.safetensors")
    picture(60, 90).save(tmp_path / "photo.png")

    found = load_lmm(tmp_path / "lmm", dtype="float32")
    one = sample(lmm, picture(60, 90))
    torch.testing.assert_close(found([one])[0].maps, lmm([one])[0].maps, atol=1e-5, rtol=1e-4)
    arguments = ["ground", str(tmp_path / "photo.png"), "a red car", "the sky"]
    for option in ("lmm", "sam"):
        arguments += [f"--{option}", str(tmp_path / option)]
    arguments += ["--checkpoint", str(tmp_path / "heads.safetensors")]
    assert main([*arguments, "-o", str(tmp_path / "out.png")]) == 0, capsys.readouterr().err
    assert (tmp_path / "out.json").exists()


def test_the_lmm_stays_frozen_and_in_evaluation_mode():
    lmm = tiny_lmm("llava")
    lmm.train()
    assert not any(module.training for module in lmm.modules())
    assert not any(p.requires_grad for p in lmm.parameters())


def test_a_text_beyond_the_context_is_refused():
    lmm = tiny_lmm("llava")
    one = sample(lmm, picture(*SIZES[0]))
    lmm.language_model.config.max_position_embeddings = 70
    with pytest.raises(ValueError, match="do not fit the context of 70"):
        lmm([one])
    with pytest.raises(ValueError, match="20 to generate"):
        lmm.generate([one.image], one.text.input_ids, max_new_tokens=20)


def test_a_text_without_the_image_token_is_refused():
    lmm = tiny_lmm("llava")
    one = sample(lmm, picture(*SIZES[0]))
    one.text.input_ids[2] = 9
    with pytest.raises(ValueError, match="0 image tokens for 1 images"):
        lmm([one])
