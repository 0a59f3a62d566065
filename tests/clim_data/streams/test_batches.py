"""A batch moves as a whole: tensors, lists of tensors, and texts that stay."""

import torch
from clim_data.streams.mosaics import MosaicBatch


def test_all_tensors_of_a_batch_move_and_texts_stay():
    boxes = [torch.zeros(4, 4), torch.zeros(9, 4)]
    batch = MosaicBatch(torch.zeros(2, 3, 8, 8), boxes, torch.zeros(1, 3, 4, 4), ["a"], ["key"])
    moved = batch.to("meta")
    assert isinstance(moved, MosaicBatch)
    assert {moved.mosaics.device.type, moved.singles.device.type} == {"meta"}
    assert [(b.device.type, len(b)) for b in moved.boxes] == [("meta", 4), ("meta", 9)]
    assert (moved.captions, moved.keys) == (["a"], ["key"])
    assert batch.mosaics.device.type == "cpu"
    assert MosaicBatch(batch.mosaics, [], batch.singles, [], []).to("meta").boxes == []
