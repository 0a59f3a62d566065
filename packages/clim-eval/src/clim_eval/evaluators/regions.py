"""Zero-shot region classification: name every annotated region from its feature, one backbone pass
per image.

Letters: B images, n_i regions of image i, N all regions, K classes, C channels, S square input
side, c crop side.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from clim_data import BrokenSample, SkipReport
from clim_data.processes import gather_objects
from clim_models import REQUESTS, Attended, Pooled, request_named
from clim_models.towers import evaluation_mode
from torch import Tensor

from clim_eval.evaluators.pixels import RegionEncoder
from clim_eval.evaluators.sharing import (
    EvaluationLoading,
    LoadingKeywords,
    choose_loading,
    keyed_batches,
    merge_by_key,
    progress_bar,
)
from clim_eval.metrics.accuracy import ROUNDINGS, class_accuracy_table, label_ranks
from clim_eval.reports.coverage import Coverage, check_scored

BATCH_SIZE = 8  # images per forward pass
CROPS_PER_PASS = 256

# Names of the region features of clim_models: boxes, boxes_value, ..., masks_attention.
READOUTS = tuple(
    name for name, request in REQUESTS.items() if isinstance(request, Pooled | Attended)
)
# Features by which a box can be named.
BOX_FEATURES = ("crops", *(name for name in READOUTS if name.startswith("boxes")))


@dataclass(frozen=True)
class RegionRows:
    """The predictions for all regions, before averaging; rows in the order of the data set."""

    image_ids: np.ndarray  # (N,)
    labels: np.ndarray  # (N,) int64
    is_thing: np.ndarray  # (N,) bool
    areas: np.ndarray  # (N,) pixels of the original image
    # readout -> (N,) number of wrong classes at least as similar as the right one
    ranks: dict[str, np.ndarray]
    similarities: dict[str, np.ndarray]  # readout -> (N,) cosine with the right class
    coverage: tuple[Coverage, ...] = ()  # of images and of regions

    def counts(self) -> dict[str, int]:
        """Count images with regions, regions, things, stuff and classes that occur."""
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
        loading: batch size, workers and progress bar.
        keywords: the fields of `loading` one by one.

    A mask that covers no patch has no feature and counts as wrong (the original evaluators break
    that tie between all classes arbitrarily).

    With a torch.distributed process group every rank calls ``run``; each evaluates its own part and
    all return the same result. Raises ValueError for unknown outputs or rounding.
    """

    def __init__(
        self,
        model: RegionEncoder,
        class_embeddings: Tensor,
        *,
        outputs: Sequence[str] = ("boxes", "masks"),
        crops: bool = True,
        rounding: str = "exact",
        loading: EvaluationLoading | None = None,
        **keywords: Unpack[LoadingKeywords],
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
        self.loading = choose_loading(loading, keywords)

    def run(self, data: Any) -> dict[str, float]:
        """Return ``{"boxes.thing.mAcc1", "boxes.thing.mAcc5", "boxes.stuff...", "boxes.all...",
        "masks...", "crops..."}``.

        ``data`` is a dataset of RegionSample (``clim_data.PanopticRegions``), or a loader of lists
        of them that are known by their ``image_id``. Fractions in [0, 1]; things or stuff that do
        not occur are not in the result.

        Raises:
            ValueError: no region was scored.
        """
        return self.summarize(self.collect(data))

    def summarize(self, rows: RegionRows) -> dict[str, float]:
        """Compute the metrics of `run` from collected rows."""
        metrics = {}
        for name, ranks in rows.ranks.items():
            table = class_accuracy_table(ranks, rows.labels, rows.is_thing, rounding=self.rounding)
            metrics.update({f"{name}.{key}": value for key, value in table.items()})
        return metrics

    @torch.no_grad()
    def collect(self, data: Any) -> RegionRows:
        """Classify every region and return one row for each, gathered over ranks, none twice.

        Raises:
            ValueError: no region was scored.
        """
        batches, total = keyed_batches(
            data,
            lambda sample: sample.image_id,
            batch_size=self.loading.batch_size or BATCH_SIZE,
            workers=self.loading.workers,
        )
        found: list[tuple[Any, ImageRows]] = []
        left_out: list[tuple[Any, LeftOut]] = []
        with evaluation_mode(self.model):
            for batch in progress_bar(batches, total, "regions", self.loading.progress):
                found += self._classify([pair for pair in batch if len(pair[1].labels)])
                left_out += [(key, LeftOut.of(sample)) for key, sample in batch]

        images = merge_by_key(gather_objects(found))
        coverage = _coverage(data, images, merge_by_key(gather_objects(left_out)))
        check_scored(coverage, "check that the annotation file belongs to the images")
        return self._stack(images, coverage)

    def _classify(self, batch: list[tuple[Any, Any]]) -> list[tuple[Any, "ImageRows"]]:
        """Return (key, rows of this image's regions) for each image of one batch."""
        if not batch:
            return []

        samples = [sample for _, sample in batch]
        labels = torch.cat([sample.labels for sample in samples])
        features = dict(self._dense_features(samples))
        if self.crops:
            features["crops"] = encode_crops(self.model, samples)

        sizes = [len(sample.labels) for sample in samples]
        ranks: dict[str, tuple[Tensor, ...]] = {}
        similarities: dict[str, tuple[Tensor, ...]] = {}
        for name, rows in features.items():
            scores = rows.float() @ self.class_embeddings.to(rows.device).T  # (sum n_i, K)
            right = labels.to(rows.device)
            ranks[name] = label_ranks(scores, right).cpu().split(sizes)
            similarities[name] = scores.gather(1, right[:, None])[:, 0].cpu().split(sizes)

        found = []
        for i, (key, sample) in enumerate(batch):
            rows_of_image = ImageRows(
                image_ids=np.full(len(sample.labels), sample.image_id),
                labels=np.asarray(sample.labels),
                is_thing=np.asarray(sample.is_thing).astype(bool),
                areas=np.asarray(sample.areas),
                ranks={name: parts[i].numpy() for name, parts in ranks.items()},
                similarities={name: parts[i].numpy() for name, parts in similarities.items()},
            )
            found.append((key, rows_of_image))
        return found

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

    def _stack(self, images: Sequence["ImageRows"], coverage: tuple[Coverage, ...]) -> RegionRows:
        """Join the rows of all images."""
        ranks: dict[str, np.ndarray] = {}
        similarities: dict[str, np.ndarray] = {}
        for name in (*self.outputs, *(("crops",) if self.crops else ())):
            ranks[name] = np.concatenate([image.ranks[name] for image in images])
            similarities[name] = np.concatenate([image.similarities[name] for image in images])

        return RegionRows(
            image_ids=np.concatenate([image.image_ids for image in images]),
            labels=np.concatenate([image.labels for image in images]),
            is_thing=np.concatenate([image.is_thing for image in images]),
            areas=np.concatenate([image.areas for image in images]),
            ranks=ranks,
            similarities=similarities,
            coverage=coverage,
        )


def encode_crops(model: RegionEncoder, samples: Sequence[Any]) -> Tensor:
    """Return (sum n_i, C) image features of the crops of all regions.

    Raises:
        ValueError: the data bring no crops.
    """
    if any(sample.crops is None for sample in samples):
        raise ValueError(
            "crops=True, but the data brings no crops: build it with crop_px "
            "(PanopticRegions(..., crop_px=model.image_size[0])), or pass crops=False"
        )
    crops = torch.cat([sample.crops for sample in samples])  # (sum n_i, 3, c, c)
    # Crops of several images share a pass.
    features = []
    for part in crops.split(CROPS_PER_PASS):
        features.append(model.encode_image(model.normalize_pixels(part)))
    return torch.cat(features)


@dataclass(frozen=True)
class ImageRows:
    """The rows of `RegionRows` of one image."""

    image_ids: np.ndarray
    labels: np.ndarray
    is_thing: np.ndarray
    areas: np.ndarray
    ranks: dict[str, np.ndarray]
    similarities: dict[str, np.ndarray]


@dataclass(frozen=True)
class LeftOut:
    """The skipped parts of one image: the image itself, or some or all of its regions.

    image: the fault of the image, or a warning about it (`SampleWarning`).
    """

    image: tuple[BrokenSample, ...]
    regions: tuple[BrokenSample, ...]
    lost_regions: int

    @classmethod
    def of(cls, sample: Any) -> "LeftOut":
        """Read the faults of a RegionSample; samples of other data sets need not have any."""
        fault = getattr(sample, "fault", None)
        if fault is not None:
            return cls((fault,), (), getattr(sample, "annotated", 0))

        found = SkipReport(getattr(sample, "left_out", ()))
        image: list[BrokenSample] = [*found.warnings]
        if len(sample.labels) == 0:
            image.append(BrokenSample("no region that counts", f"image {sample.image_id}"))
        return cls(tuple(image), tuple(found.faults), 0)


def _coverage(
    data: Any, images: Sequence[ImageRows], left_out: Sequence[LeftOut]
) -> tuple[Coverage, Coverage]:
    """Return the coverage of images and of regions."""
    faults = SkipReport(getattr(data, "left_out", ()))
    regions = SkipReport(getattr(data, "left_out_regions", ()))
    for one in left_out:
        faults.extend(one.image)
        regions.extend(one.regions)

    return (
        Coverage("images", len(images), faults),
        Coverage(
            "regions",
            sum(len(image.labels) for image in images),
            regions,
            by_rule={"image left out": sum(one.lost_regions for one in left_out)},
        ),
    )
