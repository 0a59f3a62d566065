"""What an LMM expects of a token, compared with its own logits."""

import torch
from flmm.adapters.chances import token_chances
from flmm.adapters.features import Sample
from flmm.samples import prepare_image
from flmm.text.tokens import tokenize_expressions
from tiny_grounding import tiny_grounded
from tiny_lmms import picture


def expected(logits, ids):
    """Log-probability, its distance to the best, and entropy of each token, the plain way."""
    rows = []
    for row, token in zip(logits.double(), ids.tolist(), strict=True):
        chances = row.softmax(0)
        entropy = -(chances * chances.log()).sum()
        rows.append([chances[token].log(), (chances[token] / chances.max()).log(), entropy])
    return torch.tensor(rows).float()


def test_chances_are_those_of_the_whole_model():
    lmm = tiny_grounded().eval().lmm
    prompt = lmm.family.style.prompt()
    samples = []
    for seed, phrases in ((1, ["a big dog", "the tree"]), (2, ["a red car"])):
        tokens = tokenize_expressions(lmm.tokenizer, prompt, phrases, spaced=lmm.family.spaced)
        samples.append(Sample(prepare_image(lmm.family, picture(60, 90, seed=seed)), tokens))
    together = lmm(samples)

    for sample, found in zip(samples, together, strict=True):
        text = sample.text
        layout = lmm.family.layout(sample.image)
        if int((text.input_ids == lmm.family.image_token_id).sum()) != layout.tokens:
            token = lmm.family.image_token_id
            text = text.expand(token, [layout.ids(token, lmm.tokenizer)])
        inputs = lmm.family.model_inputs([sample.image], text.input_ids[None])
        with torch.no_grad():
            logits = lmm.model(input_ids=text.input_ids[None], **inputs).logits[0]
        places = torch.cat(text.phrase_positions())
        wanted = expected(logits[places - 1], text.input_ids[places])
        torch.testing.assert_close(found.chances, wanted, atol=1e-4, rtol=1e-4)


def test_chances_of_an_answer_are_those_of_its_greedy_tokens():
    lmm = tiny_grounded().eval().lmm
    image = prepare_image(lmm.family, picture(60, 90, seed=3))
    ids = torch.tensor(lmm.tokenizer.encode(lmm.family.style.prompt()))
    lmm.model.generation_config.eos_token_id = 1  # or it ends at once
    answer = lmm.generate([image], ids, max_new_tokens=5)
    assert answer.chances.shape == (len(answer.maps), 3)
    # A greedy token is the most likely one.
    torch.testing.assert_close(answer.chances[:, 1], torch.zeros(len(answer.maps)))
    assert torch.equal(answer.phrases([(1, 3)]).chances, answer.chances[1:3])


def test_a_cap_and_an_impossible_token():
    layer = torch.nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[300.0, 0], [0, 0], [0, 1]]))
    states, ids = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
    own, behind, entropy = token_chances(layer, states, ids)[0].tolist()
    assert (own, behind, entropy) == (-50, -50, 0)  # cut off where it tells nothing more
    capped = token_chances(layer, states, ids, cap=2.0)
    logits = 2 * torch.tanh(layer(states) / 2)
    torch.testing.assert_close(capped, expected(logits.detach(), ids))
    assert token_chances(layer, states[:0], ids[:0]).shape == (0, 3)
