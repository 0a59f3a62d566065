"""Names of drawings as clim-tiny's text tower reads them."""

from collections.abc import Callable, Mapping
from typing import Protocol

import open_clip
import torch
from clim_data.drawings import caption_of
from clim_models import TINY
from torch import Tensor, nn

TEMPLATES = ("{}", "a picture of a {}", "a drawing of a {}", "an icon of a {}")


class TinyClip(Protocol):
    """The parts of clim-tiny, an open_clip `CustomTextCLIP`, that the pretraining uses."""

    @property
    def visual(self) -> nn.Module: ...

    @property
    def logit_scale(self) -> Tensor: ...

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor: ...

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor: ...

    def state_dict(self) -> Mapping[str, Tensor]: ...


def text_features(model: TinyClip, names: tuple[str, ...]) -> Tensor:
    """Return unit text features of every name under every template, (templates, names, C)."""
    tokenizer = unpadded_tokenizer(open_clip.get_tokenizer(TINY))
    device = model.logit_scale.device
    rows = []
    for template in TEMPLATES:
        ids = tokenizer([template.format(caption_of(name)) for name in names]).to(device)
        with torch.no_grad():
            parts = [model.encode_text(part, normalize=True) for part in ids.split(256)]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def unpadded_tokenizer(tokenizer: Callable[[list[str]], Tensor]) -> Callable[[list[str]], Tensor]:
    """Return clim-tiny's tokenizer without the padding (id 0) that no text of the call needs.

    The text tower masks padding, so features stay the same and short captions cost a third.
    """

    def tokenize(texts: list[str]) -> Tensor:
        ids = tokenizer(texts)
        return ids[:, : int((ids != 0).sum(1).max())]

    return tokenize
