"""Image-text retrieval, an ability that a region fine-tuning may cost.

Letters: I images, T distinct captions, K classes, C channels.
"""

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from clim_data import BrokenSample
from clim_data.processes import Ranks, gather_objects
from clim_models.towers import evaluation_mode
from torch import Tensor

from clim_eval.evaluators.pixels import TextImageModel, device_of, encode_pixels
from clim_eval.evaluators.sharing import (
    EvaluationLoading,
    LoadingKeywords,
    choose_loading,
    gather_faults,
    keyed_batches,
    merge_by_key,
    progress_bar,
)
from clim_eval.metrics.accuracy import best_ranks
from clim_eval.reports.coverage import Coverage, check_scored

BATCH_SIZE = 64
DEPTHS = (1, 5, 10)  # of recall


class ImageTextRetrieval:
    """Recall at k in both directions, several captions per image.

    Captions that are equal as strings are one text, which is right for every image that has it. So
    duplicates, which are frequent in small sets, do not depend on the order. A wrong answer with
    exactly the same score counts as ranked before. Text-to-image recall averages over all (image,
    caption) pairs. Images without captions (an unreadable file of ``clim_data.ImageCaptions``) are
    skipped. ``coverage`` has the number of images that the last run scored, and the skipped ones
    with reasons.

    Args:
        model: RegionModel.
        loading: batch size (of images and of texts), workers and progress bar.
        keep_texts: encode captions in the first run only. Use it where only the image tower changes
            between runs on one data set.
        keywords: the fields of `loading` one by one.
    """

    def __init__(
        self,
        model: TextImageModel,
        *,
        loading: EvaluationLoading | None = None,
        keep_texts: bool = False,
        **keywords: Unpack[LoadingKeywords],
    ):
        self.model = model
        self.loading = choose_loading(loading, keywords)
        self.batch_size = self.loading.batch_size or BATCH_SIZE
        self.keep_texts = keep_texts
        self.coverage: tuple[Coverage, ...] = ()
        self._cached_texts: tuple[list[str], Tensor] | None = None

    @torch.no_grad()
    def run(self, data: Any) -> dict[str, float]:
        """Return ``{"i2t.R@1", "i2t.R@5", "i2t.R@10", "t2i.R@1", ...}``, fractions in [0, 1].

        ``data`` is a dataset of ``(image, captions, image_id)`` (``clim_data.ImageCaptions``):
        uint8 (3, H, W) pixels of one size and a list of strings; or a loader of lists of them.
        Every rank of a process group must call this.

        Raises:
            ValueError: no image has a caption.
        """
        with evaluation_mode(self.model):
            images, captions = self._encode_images(data)
            texts = list(dict.fromkeys(caption for group in captions for caption in group))
            text_features = self._text_features(texts)

        number = {text: index for index, text in enumerate(texts)}
        texts_of: list[list[int]] = []
        images_of: list[list[int]] = [[] for _ in texts]
        pairs: list[int] = []  # the text of every (image, caption) pair
        for image, group in enumerate(captions):
            own = [number[caption] for caption in group]
            pairs += own
            texts_of.append(sorted(set(own)))
            for text in texts_of[-1]:
                images_of[text].append(image)

        image_ranks = best_ranks(images, text_features, texts_of).numpy()
        pair_ranks = best_ranks(text_features, images, images_of).numpy()[pairs]
        metrics = {f"i2t.R@{k}": float((image_ranks < k).mean()) for k in DEPTHS}
        metrics |= {f"t2i.R@{k}": float((pair_ranks < k).mean()) for k in DEPTHS}
        return metrics

    def _encode_images(self, data: Any) -> tuple[Tensor, list[list[str]]]:
        """Return (I, C) unit rows on the model's device and the captions of each image, in the
        order of the data."""
        batches, total = keyed_batches(
            data, lambda item: item[2], batch_size=self.batch_size, workers=self.loading.workers
        )
        part: list[tuple[Any, tuple[np.ndarray, list[str]]]] = []
        faults: list[tuple[Any, BrokenSample]] = []
        for batch in progress_bar(batches, total, "images", self.loading.progress):
            for _, item in batch:
                _check_captions(item)
            faults += [(key, _fault(item)) for key, item in batch if not item[1]]
            usable = [(key, item) for key, item in batch if item[1]]
            if not usable:
                continue

            features = encode_pixels(self.model, [item[0] for _, item in usable]).cpu().numpy()
            for row, (key, item) in zip(features, usable, strict=True):
                part.append((key, (row, list(item[1]))))

        rows = merge_by_key(gather_objects(part))
        self.coverage = (Coverage.of("images", len(rows), gather_faults(data, faults)),)
        check_scored(self.coverage, "check the image folder and the file of captions")

        stacked = torch.from_numpy(np.stack([row for row, _ in rows]))
        return stacked.to(device_of(self.model)), [captions for _, captions in rows]

    def _text_features(self, texts: list[str]) -> Tensor:
        if self._cached_texts is not None and self._cached_texts[0] == texts:
            return self._cached_texts[1]

        features = self._encode_texts(texts)
        if self.keep_texts:
            self._cached_texts = texts, features
        return features

    def _encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (T, C) unit rows on the model's device; each rank encodes every R-th chunk."""
        device = device_of(self.model)
        rank, world_size = Ranks.of_group()
        starts = range(rank * self.batch_size, len(texts), world_size * self.batch_size)

        part: list[tuple[int, np.ndarray]] = []
        for start in progress_bar(starts, len(starts), "captions", self.loading.progress):
            # The model moves them: on the CPU it can drop the padding first.
            tokens = self.model.tokenizer(list(texts[start : start + self.batch_size]))
            part.append((start, self.model.encode_text(tokens).float().cpu().numpy()))
        return torch.from_numpy(np.concatenate(merge_by_key(gather_objects(part)))).to(device)


def _check_captions(item: Any) -> None:
    if isinstance(item[1], str):
        raise ValueError(
            f"image {item[2]} has captions={item[1]!r}: give each image a list of captions"
        )


def _fault(item: Any) -> BrokenSample:
    """Return the fault of an item without captions; items of other data sets have none."""
    return getattr(item, "fault", None) or BrokenSample(
        "image without a caption", f"image {item[2]}"
    )
