"""Text towers run for words, not for padding.

Tokenizers fill each text up to the context length, 77 tokens for most CLIPs, of which a prompt
uses ten. Columns after the longest text of a batch have no effect in a causal tower, or in a tower
that masks its padding, so they need not run.

Letters: N texts, T tokens of the context, t columns that run, D width, C embedding.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIP
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from clim_models.open_clip_compat import OpenClipModel

# Columns are counted in steps, so that compiled and cached kernels meet few shapes.
STEP = 8


@dataclass(frozen=True)
class CausalText:
    """A causal text tower of open_clip, whose feature is read at the end of the text.

    Attributes:
        owner: the module that has the parts below: the model itself, or its `text`.
        mask: (T, T), added to the scores of attention: no token sees those behind it.
        pool: "argmax" (the end of text has the highest id) or "eos".
        eos: id of the end of text; only "eos" needs it.
    """

    owner: Any
    mask: Tensor
    pool: str
    eos: int

    @classmethod
    def of(cls, clip: OpenClipModel) -> "CausalText | None":
        """Find the causal tower of a model; None for every other kind of text tower.

        A tower that sees its padding (SigLIP, CLIPA), appends a class token (CoCa), returns its
        tokens or pads its texts itself (`variable_text` of open_clip 4) is another kind.
        """
        inner = getattr(clip, "text", None)
        if isinstance(inner, TextTransformer):
            special = inner.cls_emb is not None or inner.output_tokens
            pads = getattr(inner, "use_pad_mask", False) or getattr(inner, "variable_text", False)
            if special or pads:
                return None
            owner, pool, eos = inner, inner.pool_type, getattr(inner, "eos_id", -1)
        elif type(clip) is CLIP and hasattr(clip, "text_pool_type"):
            owner, pool, eos = clip, clip.text_pool_type, getattr(clip, "text_eos_id", -1)
        else:
            return None

        mask = getattr(owner, "attn_mask", None)
        if mask is None or pool not in ("argmax", "eos"):
            return None
        return cls(owner, mask, pool, eos)

    def ends(self, token_ids: Tensor) -> Tensor:
        """Return the column of the end of each text: (N, t) -> (N,)."""
        if self.pool == "argmax":
            return token_ids.argmax(dim=-1)
        return torch.eq(token_ids, self.eos).int().argmax(dim=-1)

    def encode(self, token_ids: Tensor) -> Tensor:
        """Encode (N, t) token ids, t at most T: (N, C), not normalised."""
        tower = self.owner
        columns = token_ids.shape[1]
        dtype = tower.transformer.get_cast_dtype()

        x = tower.token_embedding(token_ids).to(dtype)  # (N, t, D)
        x = x + tower.positional_embedding[:columns].to(dtype)
        x = tower.ln_final(tower.transformer(x, attn_mask=self.mask[:columns, :columns]))

        rows = torch.arange(len(x), device=x.device)
        pooled = x[rows, self.ends(token_ids)]
        projection = tower.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection


def drop_padding(clip: OpenClipModel, token_ids: Tensor) -> Tensor:
    """Drop the columns behind the longest text: (N, T) token ids -> (N, t).

    t is the least multiple of 8 that holds all texts. Towers that read their padding get all
    columns, and so does a tensor that is on a GPU: to look at it, Python would have to wait.
    """
    if type(token_ids) is not Tensor or token_ids.device.type != "cpu" or not len(token_ids):
        return token_ids
    tower = CausalText.of(clip)
    if tower is not None:
        used = int(tower.ends(token_ids).max()) + 1
    elif isinstance(getattr(clip, "text", None), HFTextEncoder):
        words = token_ids != clip.text.config.pad_token_id
        used = int(words.any(dim=0).nonzero().max()) + 1 if bool(words.any()) else STEP
    else:
        return token_ids
    return token_ids[:, : -(-used // STEP) * STEP]


def encode_text(clip: OpenClipModel, token_ids: Tensor, *, normalize: bool) -> Tensor:
    """Encode texts as `clip.encode_text` does, also when `drop_padding` has cut them.

    Args:
        clip: an open_clip model.
        token_ids: (N, t), on the device of the model.
        normalize: scale the features to unit length.

    Returns:
        (N, C).
    """
    tower = CausalText.of(clip)
    if tower is None or token_ids.shape[1] == len(tower.mask):
        features: Tensor = clip.encode_text(token_ids, normalize=normalize)
        return features
    features = tower.encode(token_ids)
    return F.normalize(features, dim=-1) if normalize else features
