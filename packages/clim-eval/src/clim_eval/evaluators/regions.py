"""Zero-shot region classification: name every annotated region from its feature, one backbone pass
per image.

Letters: B images, n_i regions of image i, N all regions, K classes, C channels, S square input
side, c crop side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from clim_data import SkipReport
from clim_models import REQUESTS, Attended, Pooled, request_named
from torch import Tensor

from clim_eval.evaluators.pixels import RegionEncoder
from clim_eval.evaluators.region_pass import LeftOut, PassFeatures, collect_in_one_pass
from clim_eval.evaluators.sharing import EvaluationLoading, LoadingKeywords, choose_loading
from clim_eval.metrics.accuracy import ROUNDINGS, class_accuracy_table, label_ranks
from clim_eval.reports.coverage import Coverage, check_scored

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

    title = "regions"

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
        self.requests = {name: request_named(name) for name in self.outputs}
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

    def collect(self, data: Any) -> RegionRows:
        """Classify every region and return one row for each, gathered over ranks, none twice.

        Raises:
            ValueError: no region was scored.
        """
        (rows,) = collect_in_one_pass(data, [self])
        return rows

    def answer(self, samples: Sequence[Any], features: PassFeatures) -> list["ImageRows"]:
        """Return the rows of each image's regions, see `collect_in_one_pass`."""
        labels = torch.cat([sample.labels for sample in samples])
        read = {name: features.of[request] for name, request in self.requests.items()}
        if self.crops:
            assert features.crops is not None
            read["crops"] = features.crops

        sizes = [len(sample.labels) for sample in samples]
        ranks: dict[str, tuple[Tensor, ...]] = {}
        similarities: dict[str, tuple[Tensor, ...]] = {}
        for name, rows in read.items():
            scores = rows.float() @ self.class_embeddings.to(rows.device).T  # (sum n_i, K)
            right = labels.to(rows.device)
            ranks[name] = label_ranks(scores, right).cpu().split(sizes)
            similarities[name] = scores.gather(1, right[:, None])[:, 0].cpu().split(sizes)

        found = []
        for i, sample in enumerate(samples):
            rows_of_image = ImageRows(
                image_ids=np.full(len(sample.labels), sample.image_id),
                labels=np.asarray(sample.labels),
                is_thing=np.asarray(sample.is_thing).astype(bool),
                areas=np.asarray(sample.areas),
                ranks={name: parts[i].numpy() for name, parts in ranks.items()},
                similarities={name: parts[i].numpy() for name, parts in similarities.items()},
            )
            found.append(rows_of_image)
        return found

    def finish(self, data: Any, answers: list["ImageRows"], left_out: list[LeftOut]) -> RegionRows:
        """Join the rows of all images, see `collect_in_one_pass`."""
        coverage = _coverage(data, answers, left_out)
        check_scored(coverage, "check that the annotation file belongs to the images")
        return self._stack(answers, coverage)

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


@dataclass(frozen=True)
class ImageRows:
    """The rows of `RegionRows` of one image."""

    image_ids: np.ndarray
    labels: np.ndarray
    is_thing: np.ndarray
    areas: np.ndarray
    ranks: dict[str, np.ndarray]
    similarities: dict[str, np.ndarray]


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
