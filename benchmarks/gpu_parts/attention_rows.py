"""Rows of attention, as flmm captures them beside the fast kernel, against eager attention."""

from dataclasses import dataclass

import torch
from attention_capture import IMAGE_START, WORDS, sequence
from flmm import Capture, PhraseRows, use_rows_attention
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaModel
from transformers.models.qwen2_5_vl import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from gpu_parts.record import Part

GEOMETRIES = ("Llama", "grouped", "Qwen2.5-VL")
HEAD_WIDTHS = (128, 64, 96, 80)
LAYERS = 2
EPS = 2.0**-24  # of float32: the largest relative error of one rounding


@dataclass(frozen=True)
class Geometry:
    """A language model's attention, and a sequence: `image` of its `tokens` are those of an
    image."""

    name: str
    heads: int
    groups: int
    width: int
    tokens: int
    image: int
    phrases: int

    @classmethod
    def of(cls, name: str, width: int, *, tiny: bool) -> "Geometry":
        heads, few = (4, 2) if tiny else (32, 8)
        groups = heads if name == "Llama" else few
        tokens, image, phrases = (60, 30, 3) if tiny else (700, 576, 20)
        return cls(name, heads, groups, width, tokens, image, phrases)

    @property
    def label(self) -> str:
        return f"{self.name}, {self.heads} / {self.groups} heads of {self.width}"

    def model(self, device: torch.device) -> nn.Module:
        """Two layers with random weights, large enough that attention is far from even."""
        hidden = self.heads * self.width
        sizes = {
            "vocab_size": 100,
            "hidden_size": hidden,
            "intermediate_size": hidden // 4,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.groups,
            "initializer_range": 1.3 / hidden**0.5,  # queries and keys then have a deviation of 1.3
        }
        torch.manual_seed(self.width)
        with torch.device(device):
            if self.name != "Qwen2.5-VL":
                return LlamaModel(LlamaConfig(**sizes)).eval()
            eighth = self.width // 16  # of half a head: pairs of channels for time, row and column
            section = [2 * eighth, 3 * eighth, 3 * eighth]
            rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section}
            return Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**sizes, rope_parameters=rope)).eval()

    def inputs(self, device: torch.device) -> tuple[dict[str, Tensor], Tensor, list[Tensor]]:
        """Arguments of the model, columns of the image, and positions of each phrase's words."""
        ids, columns, phrases = sequence(self.tokens, self.image, self.phrases, device)
        inputs = {"input_ids": ids}
        if self.name == "Qwen2.5-VL":
            inputs["position_ids"] = self._places().to(device)
        return inputs, columns, phrases

    def _places(self) -> Tensor:
        """(3, 1, S) time, row and column of each token; text counts on all three."""
        side = int(self.image**0.5)
        number = torch.arange(self.image)
        grid = torch.stack([torch.zeros_like(number), number // side, number % side]) + IMAGE_START
        after = torch.arange(self.tokens - IMAGE_START - self.image) + grid.max() + 1
        before = torch.arange(IMAGE_START)
        return torch.cat([before.expand(3, -1), grid, after.expand(3, -1)], dim=1)[:, None]


def rows_of_attention(part: Part, geometry: Geometry) -> None:
    """In bfloat16 and float32, on the same weights."""
    model = geometry.model(part.device).bfloat16()
    inputs, columns, phrases = geometry.inputs(part.device)
    given = (model, inputs, [columns], [phrases])
    rough, rough_eager = captured(*given)[0], eager(*given)[0]
    model.float()
    exact, truth = captured(*given)[0], eager(*given)[0]

    tolerance = float32_tolerance(model.config.hidden_size)
    part.close_to(f"rows of {geometry.label}, float32", exact, truth, tolerance)

    # In 16 bits two right answers differ by many roundings. Ours may be as far from float32 as
    # eager's is: a quarter more in the mean of many thousands of values; the largest of them
    # scatters more. A wrong row is tens of times off.
    ours, other = (rough.float() - truth).abs(), (rough_eager.float() - truth).abs()
    name = f"rows of {geometry.label}, bf16: error in units of eager's"
    part.within(f"{name}, mean", (ours.mean() / other.mean()).item(), 1.25)
    part.within(f"{name}, largest", (ours.max() / other.max()).item(), 4.0)


def float32_tolerance(width: int) -> float:
    """Error of a weight: sums of `width` terms in each layer, times 10 in scores of that size,
    times 4 for safety."""
    return 4 * 10 * LAYERS * width**0.5 * EPS


def rows_of_padded_batch(part: Part) -> None:
    geometry = Geometry.of("grouped", 128, tiny=part.tiny)
    model = geometry.model(part.device)
    inputs, columns, phrases = geometry.inputs(part.device)
    padding = geometry.tokens // 7
    whole = inputs["input_ids"]
    shifted = F.pad(whole[:, :-padding], (padding, 0))
    mask = torch.ones(2, geometry.tokens, dtype=torch.long, device=part.device)
    mask[1, :padding] = 0
    inputs = {"input_ids": torch.cat([whole, shifted]), "attention_mask": mask}

    # The first phrase of the second item lies where the words are after the shift.
    given = (model, inputs, [columns, columns + padding], [phrases, [phrases[-1]]])
    found, wanted = captured(*given), eager(*given)
    tolerance = float32_tolerance(model.config.hidden_size)
    for item, place in enumerate(("not padded", "padded")):
        name = f"rows of a batch padded on the left, item {place}, float32"
        part.close_to(name, found[item], wanted[item], tolerance)


@torch.no_grad()
def captured(
    model: nn.Module, inputs: dict[str, Tensor], columns: list[Tensor], phrases: list[list[Tensor]]
) -> list[Tensor]:
    """Maps (N, L * H, C) of each item, by flmm."""
    use_rows_attention(model)
    rows = [PhraseRows(of_item) for of_item in phrases]
    with Capture(model, rows=rows, columns=columns) as capture:
        model(**inputs, use_cache=False)
    return [capture.maps(item) for item in range(len(rows))]


@torch.no_grad()
def eager(
    model: nn.Module, inputs: dict[str, Tensor], columns: list[Tensor], phrases: list[list[Tensor]]
) -> list[Tensor]:
    """The same maps from whole matrices of unfused attention."""
    model.set_attn_implementation("eager")
    attentions = model(**inputs, use_cache=False, output_attentions=True).attentions
    found = []
    for item, (near, of_item) in enumerate(zip(columns, phrases, strict=True)):
        rows, near = torch.cat(of_item), near.to(attentions[0].device)
        layers = [layer[item][:, rows.to(near.device)][..., near] for layer in attentions]
        means = [layer.unflatten(1, (-1, WORDS)).float().mean(2) for layer in layers]
        found.append(torch.cat(means).transpose(0, 1).to(attentions[0].dtype))
    return found
