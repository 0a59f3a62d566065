"""Zero-shot classification of images that have one class each."""

from collections.abc import Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from clim_data import BrokenSample
from clim_data.processes import gather_objects
from clim_models.towers import evaluation_mode
from torch import Tensor

from clim_eval.evaluators.pixels import ImageModel, encode_pixels
from clim_eval.evaluators.sharing import (
    EvaluationLoading,
    LoadingKeywords,
    choose_loading,
    gather_faults,
    keyed_batches,
    merge_by_key,
    progress_bar,
)
from clim_eval.metrics.accuracy import label_ranks, top_k_accuracy
from clim_eval.reports.coverage import Coverage, check_scored

BATCH_SIZE = 64


class ZeroShotClassification:
    """Accuracy of whole-image features against class embeddings.

    Items of label -1 (an unreadable image of `class_images`) are skipped. ``coverage`` has the
    number of images that the last run scored, and the skipped ones with reasons.

    Args:
        model: RegionModel.
        class_embeddings: (K, C), one row per label; normalised here.
        loading: batch size, workers and progress bar.
        keywords: the fields of `loading` one by one.
    """

    def __init__(
        self,
        model: ImageModel,
        class_embeddings: Tensor,
        *,
        loading: EvaluationLoading | None = None,
        **keywords: Unpack[LoadingKeywords],
    ):
        if class_embeddings.ndim != 2:
            raise ValueError(
                f"class_embeddings has shape {tuple(class_embeddings.shape)}: pass (K, C) rows"
            )
        self.model = model
        self.class_embeddings = F.normalize(class_embeddings.float(), dim=-1)
        self.loading = choose_loading(loading, keywords)
        self.coverage: tuple[Coverage, ...] = ()

    @torch.no_grad()
    def run(self, data: Any) -> dict[str, float]:
        """Return ``{"top1": ..., "top5": ...}``, fractions of all readable images.

        ``data`` is a dataset of ``(image, label, ...)`` with uint8 (3, H, W) pixels of one size, or
        a loader of lists of ``(image, label, image_id)``. Every rank of a process group must call
        this.

        Raises:
            ValueError: no image was scored.
        """
        batches, total = keyed_batches(
            data,
            _image_id,
            batch_size=self.loading.batch_size or BATCH_SIZE,
            workers=self.loading.workers,
        )
        ranks: list[tuple[Any, int]] = []
        faults: list[tuple[Any, BrokenSample]] = []
        with evaluation_mode(self.model):
            for batch in progress_bar(batches, total, "images", self.loading.progress):
                faults += [(key, _fault(item)) for key, item in batch if int(item[1]) == -1]
                readable = [(key, item) for key, item in batch if int(item[1]) != -1]
                ranks += self._ranks(readable)

        scored = merge_by_key(gather_objects(ranks))
        self.coverage = (Coverage.of("images", len(scored), gather_faults(data, faults)),)
        check_scored(self.coverage, "pass the folder or shards that hold the images")
        return top_k_accuracy(scored)

    def _ranks(self, batch: list[tuple[Any, Any]]) -> list[tuple[Any, int]]:
        """Return (key, rank of the right class) of each image."""
        if not batch:
            return []

        features = encode_pixels(self.model, [item[0] for _, item in batch])
        labels = torch.tensor([int(item[1]) for _, item in batch], device=features.device)
        scores = features @ self.class_embeddings.to(features.device).T  # (B, K)
        ranks = label_ranks(scores, labels).tolist()
        return [(key, rank) for (key, _), rank in zip(batch, ranks, strict=True)]


def _image_id(item: Sequence[Any]) -> Any:
    if len(item) < 3:
        raise ValueError(
            f"a loader's item has {len(item)} fields: yield (image, label, image_id), or pass the "
            "dataset"
        )
    return item[2]


def _fault(item: Sequence[Any]) -> BrokenSample:
    """Return the fault of an item without a class; items of other data sets have none."""
    name = str(item[2]) if len(item) > 2 else "an image"
    return getattr(item, "fault", None) or BrokenSample("image without a class", name)
