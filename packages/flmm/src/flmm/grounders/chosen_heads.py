"""The few attention heads of an LMM that find things without training: chosen once, stored in a
file.

Letters: N phrases of an image, C attention channels (layers x heads x views), h w their grid.
"""

import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from clim_data import GroundingSample
from clim_data.files import default_cache_folder, write_json
from torch import Tensor

from flmm.adapters.features import PhraseFeatures
from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.layout import ImageLayout
from flmm.demo.scenes import compose_demo_scenes
from flmm.grounders.localization import spatial_entropy, vote
from flmm.samples import SampleMaker

CHOSEN = 3
"""Heads that are chosen, as in the paper of the criteria (`flmm.grounders.localization`)."""
IMAGES_PER_PASS = 8
SCENES, SCENE_PX = 32, 128
SCENES_SOURCE = f"{SCENES} drawn scenes"


@dataclass(frozen=True)
class AttentionHead:
    """A head of an LMM. view: of the image, 0 is the coarse one where there are two."""

    layer: int
    head: int
    view: int = 0


@dataclass(frozen=True)
class ChosenHeads:
    """The heads of one LMM whose attention is used.

    lmm: the name of the LMM. phrases: number of phrases in the choice. source: of these phrases.

    Raises:
        ValueError: there is no head.
    """

    heads: tuple[AttentionHead, ...]
    lmm: str = ""
    phrases: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        if not self.heads:
            raise ValueError(f"no head of {self.lmm or 'the LMM'} is chosen: choose one or more")

    def check(self, lmm: FrozenLMM) -> None:
        """Raise ValueError where this LMM does not have these heads."""
        heads, views = lmm.language_config.num_attention_heads, lmm.family.grids
        for one in self.heads:
            if not (
                0 <= one.layer < lmm.layers and 0 <= one.head < heads and 0 <= one.view < views
            ):
                raise ValueError(
                    f"the LMM has {lmm.layers} layers of {heads} heads and {views} views, not "
                    f"{one}: choose heads of this LMM"
                )

    def maps(self, features: PhraseFeatures, lmm: FrozenLMM) -> Tensor:
        """Return the attention maps (N, k, h, w) of the chosen heads."""
        channels = channel_numbers(features.layout, lmm)
        return features.maps[:, [channels[one] for one in self.heads]]

    def save(self, path: Path) -> None:
        """Write the heads as JSON, whole or not at all."""
        write_json(path, {"format": 1, **asdict(self)}, indent=1)

    @classmethod
    def read(cls, path: Path) -> "ChosenHeads":
        """Read a file of `save`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds something else.
        """
        if not path.is_file():
            raise FileNotFoundError(f"there is no file of chosen heads {path}")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            heads = tuple(AttentionHead(**one) for one in content.pop("heads"))
            if content.pop("format") != 1:
                raise ValueError("another format")
            return cls(heads, **content)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as fault:
            raise ValueError(
                f"{path} holds no chosen heads ({fault}): delete it, and they are chosen again"
            ) from None

    def __str__(self) -> str:
        """List the heads, such as "layer 14 head 24"."""
        named = []
        for one in self.heads:
            view = f" view {one.view}" if one.view else ""
            named.append(f"layer {one.layer} head {one.head}{view}")
        return ", ".join(named)


def channel_numbers(layout: ImageLayout, lmm: FrozenLMM) -> dict[AttentionHead, int]:
    """Number the C channels of an LMM's maps, as `ImageLayout.arrange` puts them."""
    heads: int = lmm.language_config.num_attention_heads
    views = len(layout.grids)
    numbers = {}
    for layer in range(lmm.layers):
        for head in range(heads):
            for view in range(views):
                if layout.heads is None:  # view by view
                    number = (view * lmm.layers + layer) * heads + head
                else:  # the views of a layer together
                    number = (layer * views + view) * heads + head
                numbers[AttentionHead(layer, head, view)] = number
    return numbers


@torch.no_grad()
def choose_heads(
    lmm: FrozenLMM,
    samples: Iterable[GroundingSample],
    *,
    count: int = CHOSEN,
    source: str = "",
) -> ChosenHeads:
    """Choose the heads that find the phrases of some images, without masks (arXiv 2503.06287).

    A few dozen images will do. The LMM reads each once; see `flmm.grounders.localization` for the
    criteria.

    Args:
        samples: of a data set of clim-data; their masks are not looked at.
        count: how many heads.
        source: what the samples are, for the file.

    Raises:
        ValueError: no sample, or no head of this LMM passes the criteria.
        BrokenSample: a sample cannot be used.
    """
    maker = SampleMaker(lmm)
    made = [maker(sample, sample.load_image()) for sample in samples]
    if not made:
        raise ValueError("there is nothing to choose heads on: pass samples with phrases")

    sums, entropies = [], []
    layout = None
    for first in range(0, len(made), IMAGES_PER_PASS):
        for features in lmm(made[first : first + IMAGES_PER_PASS]):
            layout = features.layout
            sums.append(_attention_to_image(features, lmm).cpu())
            maps = layout.crop(features.maps)  # (N, C, h, w)
            entropies.append(spatial_entropy(maps.flatten(0, 1)).view(maps.shape[:2]).cpu())

    assert layout is not None
    named = {number: head for head, number in channel_numbers(layout, lmm).items()}
    chosen = vote(torch.cat(sums), torch.cat(entropies), count)
    name = str(getattr(lmm.config, "name_or_path", "") or "")
    phrases = sum(map(len, sums))
    return ChosenHeads(tuple(named[number] for number in chosen), name, phrases, source)


def choose_on_drawn_scenes(lmm: FrozenLMM) -> ChosenHeads:
    """Choose heads on scenes of emoji, such as frogs and carrots, which are composed for it.

    No picture is needed for that. `choose_heads` on photographs with phrases fits photographs
    better.

    Raises:
        ValueError: as `choose_heads`.
    """
    with TemporaryDirectory() as folder:
        drawn = compose_demo_scenes(folder, "train", count=SCENES, image_px=SCENE_PX).read()
        samples = [drawn[number] for number in range(len(drawn))]
        return choose_heads(lmm, samples, source=SCENES_SOURCE)


def _attention_to_image(features: PhraseFeatures, lmm: FrozenLMM) -> Tensor:
    """Sum the attention of each channel to the tokens of its view -> (N, C).

    Maps of a coarse view are enlarged to the finer grid; their mean stays, their sum does not.
    """
    tokens = features.maps.new_zeros(features.maps.shape[1])
    for head, number in channel_numbers(features.layout, lmm).items():
        tokens[number] = features.layout.grids[head.view].numel()
    return features.maps.mean((2, 3)) * tokens


def heads_file_of(lmm: FrozenLMM, folder: Path | None = None) -> Path:
    """Return the file that holds the chosen heads of this LMM, in the cache of this machine.

    Its name has the LMM's, and a checksum of its configuration and some weights.
    """
    folder = folder or default_cache_folder() / "attention-heads"
    name = str(getattr(lmm.config, "name_or_path", "") or lmm.config.model_type)
    short = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(Path(name).parts[-2:])).strip("-")
    return folder / f"{short[-60:]}-{_checksum(lmm):08x}.json"


def _checksum(lmm: FrozenLMM) -> int:
    facts: list[Any] = [lmm.config.model_type, lmm.layers, lmm.map_channels, lmm.hidden_size]
    checked = zlib.crc32(repr(facts).encode())
    for weight in _some_weights(lmm):
        # Loaded in another precision, the LMM has the same heads.
        rounded = weight.flatten()[:64].detach().to("cpu", torch.bfloat16).float()
        checked = zlib.crc32(rounded.numpy().tobytes(), checked)
    return checked


def _some_weights(lmm: FrozenLMM) -> Sequence[Tensor]:
    weights = [weight for _, weight in sorted(lmm.language_model.named_parameters())]
    return weights[:: max(1, len(weights) // 32)]
