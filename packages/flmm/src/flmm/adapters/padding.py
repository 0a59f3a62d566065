"""Token ids of several texts in one batch.

Letters: B texts, S tokens of the longest, A of an answer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def without_end(answer: Tensor, pad_id: int) -> Tensor:
    """Cut the padding off an answer that ended before the longest one of its batch."""
    written = (answer != pad_id).nonzero().flatten()
    return answer[: int(written[-1]) + 1 if len(written) else 0]


def pad_right(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Pad token ids (S_i,) with 0 to (B, S).

    Returns:
        The ids, and the mask (B, S) of real tokens, None where nothing is padded.
    """
    ids = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
    lengths = torch.tensor([len(s) for s in sequences])
    if (lengths == ids.shape[1]).all():
        return ids, None
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def pad_left(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad token ids (S_i,) with 0 to (B, S), so that all end together.

    Returns:
        The ids, and the mask (B, S) of real tokens.
    """
    ids = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_side="left")
    lengths = torch.tensor([len(s) for s in sequences])
    places = torch.arange(ids.shape[1] - 1, -1, -1)
    return ids, (places < lengths[:, None]).long()
