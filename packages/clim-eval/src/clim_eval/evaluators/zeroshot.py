"""Zero-shot classification of images with a class each."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from clim_data.processes import gather_objects
from torch import Tensor, nn

from clim_eval.evaluators.pixels import encode_pixels, image_id
from clim_eval.evaluators.sharing import keyed_batches, live, merge_by_key
from clim_eval.metrics.accuracy import label_ranks, top_k_accuracy


class ZeroShotClassification:
    """Accuracy of whole-image features against class embeddings.

    Items of label -1 (which is what `class_images` makes of an unreadable image) are left out;
    ``skipped`` names those of the last run.

    Args:
        model: RegionModel.
        class_embeddings: (K, C), one row per label; normalised here.
        ks: depths, named "top1", "top5".
        batch_size, workers: for loading, when ``run`` gets a dataset.
        progress: show a live bar on rank 0.
    """

    def __init__(
        self,
        model: nn.Module,
        class_embeddings: Tensor,
        *,
        ks: Sequence[int] = (1, 5),
        batch_size: int = 64,
        workers: int = 0,
        progress: bool = False,
    ):
        if class_embeddings.ndim != 2:
            raise ValueError(
                f"class_embeddings has shape {tuple(class_embeddings.shape)}: pass (K, C) rows"
            )
        self.model = model
        self.class_embeddings = F.normalize(class_embeddings.float(), dim=-1)
        self.ks = tuple(ks)
        self.batch_size = batch_size
        self.workers = workers
        self.progress = progress
        self.skipped: list[str] = []

    @torch.no_grad()
    def run(self, data: Any) -> dict[str, float]:
        """``{"top1": ..., "top5": ...}``, fractions of all readable images; nan without images.

        ``data`` is a dataset of ``(image, label, ...)`` with uint8 (3, H, W) pixels of one size, or
        a loader of lists of ``(image, label, image_id)``. Every rank of a process group must call
        this.
        """
        batches, total = keyed_batches(
            data, image_id, batch_size=self.batch_size, workers=self.workers
        )
        training = self.model.training
        self.model.eval()
        part, faults = [], []
        try:
            for batch in live(batches, total, "images", self.progress):
                faults += [(key, f"image {item[2]}") for key, item in batch if int(item[1]) == -1]
                batch = [(key, item) for key, item in batch if int(item[1]) != -1]
                if not batch:
                    continue
                features = encode_pixels(self.model, [item[0] for _, item in batch])
                labels = torch.tensor([int(item[1]) for _, item in batch], device=features.device)
                ranks = label_ranks(
                    features @ self.class_embeddings.to(features.device).T, labels
                ).tolist()
                part += [(key, rank) for (key, _), rank in zip(batch, ranks, strict=True)]
        finally:
            self.model.train(training)
        self.skipped = merge_by_key(gather_objects(faults))
        return top_k_accuracy(merge_by_key(gather_objects(part)), self.ks)
