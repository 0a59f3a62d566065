"""Readouts in which positions mix, against one loop over images, heads and patches."""

import pytest
import torch
from clim_models import Readout
from clim_models.towers.readouts import NEIGHBOURHOOD

MIXING = [readout for readout in Readout if readout.mixes]


def slow_branch(tower, stem, readout: Readout) -> torch.Tensor:
    """Attended values (B, N, D) of the last block, one weight at a time."""
    reader = tower.readers[-1]
    y = reader.norm(stem.tokens)
    q = reader.query(y, stem.rope)
    k = reader.key(y, stem.rope)
    v = reader.value(y).unflatten(-1, (reader.heads, -1)).transpose(1, 2)
    first = tower.prefix
    width = stem.grid[1]

    images, heads, tokens, size = q.shape
    found = torch.zeros(images, tokens - first, heads, size)
    for b in range(images):
        for head in range(heads):
            for i in range(first, tokens):
                weights = torch.zeros(tokens)
                for vectors in {"sclip": (q, k), "clearclip": (q,), "naclip": (k,)}[readout]:
                    scores = torch.zeros(tokens)
                    for j in range(tokens):
                        scores[j] = vectors[b, head, i].dot(vectors[b, head, j]) / size**0.5
                        if readout == "naclip" and j >= first:
                            down = (i - first) // width - (j - first) // width
                            right = (i - first) % width - (j - first) % width
                            distance = torch.tensor(float(down**2 + right**2))
                            scores[j] += torch.exp(-distance / (2 * NEIGHBOURHOOD**2))
                    weights += scores.softmax(0)
                found[b, i - first, head] = weights @ v[b, head]
    return found.flatten(2)


@pytest.mark.parametrize("readout", MIXING)
@pytest.mark.parametrize("kind", ["vit", "custom_vit", "timm_cls", "timm_avg", "timm_dinov3"])
def test_the_map_is_that_of_the_slow_loop(towers, kind, readout):
    model = towers[kind]()
    tower = model.tower
    x = torch.randn(1, 3, 2 * model.stride, 3 * model.stride)
    with torch.no_grad():
        stem = tower.stem(x)
        branch = tower.readers[-1].output(slow_branch(tower, stem, readout))
        if readout == "sclip":
            branch = tower.readers[-1].finish(stem.tokens[:, tower.prefix :], branch)
        expected = tower.project(branch).transpose(1, 2).unflatten(-1, stem.grid)
        found = model.encode_dense(x, normalize=False, readout=readout)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["resnet", "coca", "timm_siglip", "timm_pe_core", "timm_convnext"])
def test_towers_whose_last_layer_is_no_block_refuse(towers, kind):
    model = towers[kind]()
    x = torch.zeros(1, 3, 2 * model.stride, 2 * model.stride)
    with pytest.raises(ValueError, match=r"need a transformer block .* Use readout='value_res"):
        model.encode_dense(x, readout="naclip")
