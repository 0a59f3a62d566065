"""Text features of captions, computed once while the text tower is frozen."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clim_train.transfer import to_device

if TYPE_CHECKING:
    from clim_models import RegionModel


class TextFeatures:
    """Unit text features of captions, with a cache: a frozen text tower reads a caption once.

    Args:
        model: with `tokenizer` and `encode_text`.
        size: largest number of captions in the cache; the least recently used are dropped first.
    """

    def __init__(self, model: "RegionModel", size: int):
        self.model, self.size = model, size
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """(N, C), with gradients only where the text tower trains."""
        if not self.is_frozen():
            return self._encode_tokens(captions)
        found = {text: self._kept[text] for text in captions if text in self._kept}
        missing = list(dict.fromkeys(text for text in captions if text not in found))
        if missing:
            # Copies: a view would keep the features of its whole batch alive.
            found.update(
                (text, row.clone())
                for text, row in zip(missing, self._encode(missing), strict=True)
            )
        self._keep(found)
        return torch.stack([found[text] for text in captions])

    def is_frozen(self) -> bool:
        """Tell whether nothing but the image tower and the logit scale trains."""
        trained = (name for name, p in self.model.named_parameters() if p.requires_grad)
        return all(name.startswith(("clip.visual.", "clip.logit_")) for name in trained)

    @torch.no_grad()
    def _encode(self, captions: list[str]) -> Tensor:
        # Autocast is off so that a feature does not depend on whether it was computed in a training
        # step.
        with torch.autocast(self.model.device.type, enabled=False):
            return self._encode_tokens(captions)

    def _encode_tokens(self, captions: Sequence[str]) -> Tensor:
        tokens = self.model.drop_padding(self.model.tokenizer(list(captions)))
        return self.model.encode_text(to_device(tokens, self.model.device))

    def _keep(self, found: dict[str, Tensor]) -> None:
        for text, row in found.items():
            self._kept[text] = row
            self._kept.move_to_end(text)
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)


def caption_ids(captions: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
    """Return (N,) int64 that are equal for equal captions, on every rank: 63 bits of a hash of the
    text."""
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in captions)
    ids = torch.tensor([int.from_bytes(d, "big") >> 1 for d in digests], dtype=torch.int64)
    return to_device(ids, torch.device(device))
