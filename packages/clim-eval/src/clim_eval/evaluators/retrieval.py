"""What a region fine-tuning costs: image-text retrieval and zero-shot image classification.

Letters: I images, T distinct captions, K classes, C channels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from clim_data.processes import Ranks, gather_objects
from torch import Tensor, nn

from clim_eval.evaluators.pixels import encode_pixels
from clim_eval.evaluators.sharing import keyed_batches, live, merge_by_key
from clim_eval.metrics.accuracy import best_ranks


class ImageTextRetrieval:
    """Recall at k in both directions, several captions per image.

    Captions that are equal as strings are one text, right for every image that has it (so
    duplicates, frequent in small sets, are neither lost nor decided by order). A wrong answer with
    exactly the same score counts as ranked before. Text-to-image recall averages over all (image,
    caption) pairs. Images without captions (which is what ``clim_data.ImageCaptions`` makes of an
    unreadable file) are left out; ``skipped`` names those of the last run.

    Args:
        model: RegionModel.
        ks: depths of recall.
        batch_size: images per forward pass, when ``run`` gets a dataset; also texts per forward
            pass.
        chunk: queries compared at once with all candidates.
        workers: loading processes, when ``run`` gets a dataset.
        progress: show live bars on rank 0.
        keep_texts: encode captions in the first run only; for an image tower that changes between
            runs on one data set while the text tower does not.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        ks: Sequence[int] = (1, 5, 10),
        batch_size: int = 64,
        chunk: int = 1024,
        workers: int = 0,
        progress: bool = False,
        keep_texts: bool = False,
    ):
        if not ks or min(ks) < 1:
            raise ValueError(f"ks={ks!r} must be positive depths: for example (1, 5, 10)")
        self.model = model
        self.ks = tuple(ks)
        self.batch_size = batch_size
        self.chunk = chunk
        self.workers = workers
        self.progress = progress
        self.keep_texts = keep_texts
        self.skipped: list = []  # image ids
        self._kept: tuple[list[str], Tensor] | None = None

    @torch.no_grad()
    def run(self, data: Any) -> dict[str, float]:
        """``{"i2t.R@1", "i2t.R@5", "i2t.R@10", "t2i.R@1", ...}``, fractions in [0, 1].

        ``data`` is a dataset of ``(image, captions, image_id)`` (``clim_data.ImageCaptions``):
        uint8 (3, H, W) pixels of one size and a list of strings; or a loader of lists of them.
        Every rank of a process group must call this. Raises ValueError when no image has a caption.
        """
        training = self.model.training
        self.model.eval()
        try:
            images, captions = self._encode_images(data)
            texts = list(dict.fromkeys(caption for group in captions for caption in group))
            text_features = self._text_features(texts)
        finally:
            self.model.train(training)
        number = {text: index for index, text in enumerate(texts)}
        texts_of = [sorted({number[caption] for caption in group}) for group in captions]
        images_of: list[list[int]] = [[] for _ in texts]
        for image, group in enumerate(texts_of):
            for text in group:
                images_of[text].append(image)
        image_ranks = best_ranks(images, text_features, texts_of, chunk=self.chunk).numpy()
        text_ranks = best_ranks(text_features, images, images_of, chunk=self.chunk).numpy()
        pair_ranks = text_ranks[[number[caption] for group in captions for caption in group]]
        metrics = {f"i2t.R@{k}": float((image_ranks < k).mean()) for k in self.ks}
        metrics.update({f"t2i.R@{k}": float((pair_ranks < k).mean()) for k in self.ks})
        return metrics

    def _encode_images(self, data: Any) -> tuple[Tensor, list[list[str]]]:
        """(I, C) unit rows on the model's device and the captions of each image, in the order of
        the data."""
        batches, total = keyed_batches(
            data, lambda item: item[2], batch_size=self.batch_size, workers=self.workers
        )
        part = []
        for batch in live(batches, total, "images", self.progress):
            features = encode_pixels(self.model, [item[0] for _, item in batch]).cpu().numpy()
            for row, (key, (_, captions, image_id)) in zip(features, batch, strict=True):
                if isinstance(captions, str):
                    raise ValueError(
                        f"image {image_id} has captions={captions!r}: give each image a list of "
                        "captions"
                    )
                part.append((key, (row, list(captions), image_id)))
        everything = merge_by_key(gather_objects(part))
        rows = [(row, captions) for row, captions, _ in everything if captions]
        self.skipped = [image_id for _, captions, image_id in everything if not captions]
        if not rows:
            raise ValueError(
                "the data holds no image with a caption: check its folder and annotation file"
            )
        features = torch.from_numpy(np.stack([row for row, _ in rows]))
        return features.to(next(self.model.parameters()).device), [captions for _, captions in rows]

    def _text_features(self, texts: list[str]) -> Tensor:
        if self._kept is not None and self._kept[0] == texts:
            return self._kept[1]
        features = self._encode_texts(texts)
        if self.keep_texts:
            self._kept = texts, features
        return features

    def _encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(T, C) unit rows on the model's device; each rank encodes every R-th chunk."""
        device = next(self.model.parameters()).device
        rank, world_size = Ranks.of_group()
        starts = range(rank * self.batch_size, len(texts), world_size * self.batch_size)
        part = []
        for start in live(starts, len(starts), "captions", self.progress):
            tokens = self.model.tokenizer(list(texts[start : start + self.batch_size])).to(device)
            part.append((start, self.model.encode_text(tokens).float().cpu().numpy()))
        return torch.from_numpy(np.concatenate(merge_by_key(gather_objects(part)))).to(device)
