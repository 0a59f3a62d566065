"""Zero-shot region classification: name every annotated region from its feature, one backbone pass
per image.

Letters: B images, n_i regions of image i, N all regions, K classes, C channels, S square input
side, c crop side.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from clim_data.processes import gather_objects
from clim_models import REQUESTS, Attended, Pooled, request_named
from torch import Tensor, nn

from clim_eval.evaluators.sharing import keyed_batches, live, merge_by_key
from clim_eval.metrics.accuracy import ROUNDINGS, class_accuracy_table, label_ranks

# Names of the region features of clim_models: boxes, boxes_value, ..., masks_attention.
READOUTS = tuple(
    name for name, request in REQUESTS.items() if isinstance(request, Pooled | Attended)
)
# What a box can be named by.
BOX_FEATURES = ("crops", *(name for name in READOUTS if name.startswith("boxes")))


@dataclass(frozen=True)
class RegionRows:
    """What was predicted for every region, before averaging; rows in the order of the data set."""

    image_ids: np.ndarray  # (N,)
    labels: np.ndarray  # (N,) int64
    is_thing: np.ndarray  # (N,) bool
    areas: np.ndarray  # (N,) pixels of the original image
    ranks: dict[
        str, np.ndarray
    ]  # readout -> (N,) wrong classes at least as similar as the right one
    similarities: dict[str, np.ndarray]  # readout -> (N,) cosine with the right class
    unreadable: tuple[
        str, ...
    ] = ()  # why images of the data set could not be read; they have no rows

    def counts(self) -> dict[str, int]:
        """Numbers of images with regions, regions, things, stuff and classes that occur."""
        return {
            "images": len(np.unique(self.image_ids)),
            "regions": len(self.labels),
            "things": int(self.is_thing.sum()),
            "stuff": int((~self.is_thing).sum()),
            "classes": len(np.unique(self.labels)),
        }


class RegionClassification:
    """Mean class accuracy of box, mask and crop features against class embeddings (arXiv
    2310.01403, section 4.1).

    Args:
        model: RegionModel. Each image batch goes through ``encode`` once, for all readouts
            together.
        class_embeddings: (K, C), one row per label of the data; normalised here.
        outputs: names of `READOUTS`; "_value" is the value path without residual and MLP,
            "_attention" the class token restricted to the region.
        crops: also classify each region's crop as an image of its own (n more images per image: the
            reference that dense features are measured against). The data must bring crops.
        rounding: "exact", or "fp16" for the rounding of the published figures (see
            `mean_class_accuracy`).
        batch_size: images per forward pass, when ``run`` gets a dataset.
        crop_batch: crops per forward pass; crops of several images share a pass.
        workers: loading processes, when ``run`` gets a dataset.
        progress: show a live bar on rank 0.

    A mask that covers no patch has no feature and counts as wrong (the original evaluators break
    that tie between all classes arbitrarily).

    With a torch.distributed process group every rank calls ``run``; each evaluates its own part and
    all return the same result. Raises ValueError for unknown outputs or rounding.
    """

    def __init__(
        self,
        model: nn.Module,
        class_embeddings: Tensor,
        *,
        outputs: Sequence[str] = ("boxes", "masks"),
        crops: bool = True,
        rounding: str = "exact",
        batch_size: int = 8,
        crop_batch: int = 256,
        workers: int = 0,
        progress: bool = False,
    ):
        unknown = [name for name in outputs if name not in READOUTS]
        if unknown or isinstance(outputs, str):
            raise ValueError(f"outputs={outputs!r} has unknown names: choose from {READOUTS}")
        if rounding not in ROUNDINGS:
            raise ValueError(f"rounding={rounding!r} is unknown: use one of {ROUNDINGS}")
        if not outputs and not crops:
            raise ValueError(f"nothing to evaluate: pass outputs from {READOUTS} or crops=True")
        if class_embeddings.ndim != 2:
            raise ValueError(
                f"class_embeddings has shape {tuple(class_embeddings.shape)}: pass (K, C) rows"
            )
        self.model = model
        self.class_embeddings = F.normalize(class_embeddings.float(), dim=-1)  # (K, C)
        self.outputs = tuple(dict.fromkeys(outputs))
        self.crops = crops
        self.rounding = rounding
        self.batch_size = batch_size
        self.crop_batch = crop_batch
        self.workers = workers
        self.progress = progress

    def run(self, data: Any) -> dict[str, float]:
        """``{"boxes.thing.mAcc1", "boxes.thing.mAcc5", "boxes.stuff...", "boxes.all...",
        "masks...", "crops..."}``.

        ``data`` is a dataset of RegionSample (``clim_data.PanopticRegions``), or a loader of lists
        of them that are known by their ``image_id``. Fractions in [0, 1]; things or stuff that do
        not occur are left out.
        """
        return self.summarize(self.collect(data))

    def summarize(self, rows: RegionRows) -> dict[str, float]:
        """The metrics of `run` from collected rows."""
        metrics = {}
        for name, ranks in rows.ranks.items():
            table = class_accuracy_table(ranks, rows.labels, rows.is_thing, rounding=self.rounding)
            metrics.update({f"{name}.{key}": value for key, value in table.items()})
        return metrics

    @torch.no_grad()
    def collect(self, data: Any) -> RegionRows:
        """Classify every region and return one row for each, gathered over ranks, none twice."""
        batches, total = keyed_batches(
            data, lambda sample: sample.image_id, batch_size=self.batch_size, workers=self.workers
        )
        training = self.model.training
        self.model.eval()
        part, faults = [], []
        try:
            for batch in live(batches, total, "regions", self.progress):
                part += self._classify(
                    [(key, sample) for key, sample in batch if len(sample.labels)]
                )
                faults += [
                    (key, sample.error) for key, sample in batch if getattr(sample, "error", "")
                ]
        finally:
            self.model.train(training)
        return self._stack(
            merge_by_key(gather_objects(part)), tuple(merge_by_key(gather_objects(faults)))
        )

    def _classify(self, batch: list[tuple[Any, Any]]) -> list[tuple[Any, dict]]:
        """(key, columns of this image's regions) for each image of one batch; images without
        regions cost nothing."""
        if not batch:
            return []
        samples = [sample for _, sample in batch]
        labels = torch.cat([sample.labels for sample in samples]).to(self.class_embeddings.device)
        features = dict(self._dense_features(samples))
        if self.crops:
            features["crops"] = self._crop_features(samples)
        sizes = [len(sample.labels) for sample in samples]
        ranks, similarities = {}, {}
        for name, rows in features.items():
            scores = rows.float() @ self.class_embeddings.to(rows.device).T  # (sum n_i, K)
            on = labels.to(rows.device)
            ranks[name] = label_ranks(scores, on).cpu().split(sizes)
            similarities[name] = scores.gather(1, on[:, None])[:, 0].cpu().split(sizes)
        return [
            (
                key,
                {
                    "image_ids": np.full(len(sample.labels), sample.image_id),
                    "labels": np.asarray(sample.labels),
                    "is_thing": np.asarray(sample.is_thing).astype(bool),
                    "areas": np.asarray(sample.areas),
                    "ranks": {name: parts[i].numpy() for name, parts in ranks.items()},
                    "similarities": {
                        name: parts[i].numpy() for name, parts in similarities.items()
                    },
                },
            )
            for i, (key, sample) in enumerate(batch)
        ]

    def _dense_features(self, samples: Sequence[Any]) -> Iterable[tuple[str, Tensor]]:
        """(readout, (sum n_i, C) unit rows) for every output, from one forward pass."""
        if not self.outputs:
            return ()
        pixels = self.model.normalize_pixels(
            torch.stack([sample.image for sample in samples])
        )  # (B, 3, S, S)
        requests = {name: request_named(name) for name in self.outputs}
        found = self.model.encode(
            pixels,
            list(requests.values()),
            boxes=self._regions_of(samples, "boxes", pixels.device),
            masks=self._regions_of(samples, "masks", pixels.device),
        )
        return [(name, found[request]) for name, request in requests.items()]

    def _regions_of(
        self, samples: Sequence[Any], kind: str, device: torch.device
    ) -> list[Tensor] | None:
        """Return the boxes or masks of each sample, or None if no output needs them."""
        if not any(name.startswith(kind) for name in self.outputs):
            return None
        if any(getattr(sample, kind) is None for sample in samples):
            raise ValueError(
                f"outputs={self.outputs} need {kind}, but the data brings none: build it with "
                f"{kind}, or leave out the outputs named {kind}..."
            )
        return [getattr(sample, kind).to(device) for sample in samples]

    def _crop_features(self, samples: Sequence[Any]) -> Tensor:
        """(sum n_i, C) image features of the regions' crops."""
        if any(sample.crops is None for sample in samples):
            raise ValueError(
                "crops=True, but the data brings no crops: build it with crop_px "
                "(PanopticRegions(..., crop_px=model.image_size[0])), or pass crops=False"
            )
        crops = torch.cat([sample.crops for sample in samples])  # (sum n_i, 3, c, c)
        return torch.cat(
            [
                self.model.encode_image(self.model.normalize_pixels(chunk))
                for chunk in crops.split(self.crop_batch)
            ]
        )

    def _stack(self, images: list[dict], unreadable: tuple[str, ...]) -> RegionRows:
        names = (*self.outputs, *(("crops",) if self.crops else ()))

        def column(read, dtype) -> np.ndarray:
            return (
                np.concatenate([read(image) for image in images]) if images else np.empty(0, dtype)
            )

        return RegionRows(
            image_ids=column(lambda image: image["image_ids"], np.int64),
            labels=column(lambda image: image["labels"], np.int64),
            is_thing=column(lambda image: image["is_thing"], bool),
            areas=column(lambda image: image["areas"], np.float32),
            ranks={
                name: column(lambda image, n=name: image["ranks"][n], np.int64) for name in names
            },
            similarities={
                name: column(lambda image, n=name: image["similarities"][n], np.float32)
                for name in names
            },
            unreadable=unreadable,
        )
