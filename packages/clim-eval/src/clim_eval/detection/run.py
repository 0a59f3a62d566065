"""The evaluation of a detector, or of a file of results."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clim_data import BrokenSample
from clim_data.command_line import need_path
from clim_data.processes import Ranks
from clim_data.readers import AnnotatedImages
from tqdm import tqdm

from clim_eval.detection.annotations import DetectionTruth
from clim_eval.detection.classes import with_categories
from clim_eval.detection.job import PartRecord, ResultsJob, Written, read_results
from clim_eval.detection.options import DetectionOptions
from clim_eval.detection.pictures import AnnotatedPictures
from clim_eval.detection.report import DetectionPage
from clim_eval.detection.scores import DetectionScores, score_results
from clim_eval.evaluators.detections import FoundObjects, coco_results, detect_pictures
from clim_eval.evaluators.sharing import EvaluationLoading
from clim_eval.model_loading import pick_device
from clim_eval.reports.coverage import Coverage, check_scored
from clim_eval.reports.provenance import data_fingerprint, hash_file, weights_fingerprint
from clim_eval.version import __version__

if TYPE_CHECKING:
    from clim_models.detection import TwoStageDetector

RESULTS = "detections.json"


@dataclass(frozen=True)
class DetectionReport:
    """The figures of an evaluation, their coverage, and the scored results."""

    scores: DetectionScores
    coverage: tuple[Coverage, ...]
    results: Path


def evaluate_detections(options: DetectionOptions) -> DetectionReport | None:
    """Run a detector over the images of an annotation file, or read its results, and score them.

    Every rank of a launcher looks at its part of the images; rank 0 scores all. The same call
    continues a killed run.

    Returns:
        None on ranks other than the first.

    Raises:
        FileNotFoundError, ValueError: an input is missing or does not fit, `out` holds results of
            other input or options, or no image could be read.
    """
    need_path(options.annotations, "--annotations")
    if options.images is not None:
        need_path(options.images, "--images", folder=True)
    truth = DetectionTruth.read(options.annotations)
    # A wrong protocol for this file is noticed before hours of work.
    truth.protocol(options.protocol)
    if options.detections is not None:
        need_path(options.detections, "--detections")
        written = Written(options.detections)
        about: dict[str, Any] = {"detections": hash_file(options.detections)}
    else:
        about, job = _run_detector(options, truth)
        if job is None:
            return None
        written = job

    return _score(options, truth, written, about)


def _score(
    options: DetectionOptions, truth: DetectionTruth, written: Written, about: dict[str, Any]
) -> DetectionReport:
    images = list(truth.records.images.values())
    unread = {images[place].id for place in written.unread}
    coverage = _coverage(truth, written, unread)
    check_scored(coverage[:1], "check that the annotation file belongs to the images")
    scores = score_results(
        truth,
        lambda: read_results(written.path),
        options.protocol,
        without=unread,
    )
    report = DetectionReport(scores, coverage, written.path)
    if options.out is not None:
        pictures = None
        if options.images is not None:
            readable = [one for one in images if one.id not in unread]
            pictures = AnnotatedPictures(AnnotatedImages(options.images, readable))
        page = DetectionPage(truth, scores, coverage, read_results(written.path), pictures)
        page.write(options, about)
    return report


def _run_detector(
    options: DetectionOptions, truth: DetectionTruth
) -> tuple[dict[str, Any], Written | None]:
    """Write detections.json; return its inputs and, on rank 0, its results."""
    assert options.out is not None
    assert options.images is not None
    detector = with_categories(_open(options), truth, options.classes, options.transfer)
    images = list(truth.records.images.values())
    pictures = AnnotatedPictures(AnnotatedImages(options.images, images))
    rank, world_size = Ranks.of_launcher()
    info = {
        "made_by": f"clim-eval detection {__version__}",
        "detector": weights_fingerprint(detector),
        "classes": _hash_classes(detector),
        "annotations": data_fingerprint([truth.path], {})["fingerprint"],
        "images": len(images),
        "part_images": options.part_images,
    }
    if options.transfer is not None:
        info["transfer"] = options.transfer
    job = ResultsJob(
        options.out / RESULTS,
        info,
        len(images),
        part_images=options.part_images,
        ranks=(rank, world_size),
        patience=options.patience,
        overwrite=options.overwrite,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    work = _DetectorWork(detector, pictures, truth.category_ids(detector.names), options)
    return info, job.run(work)


@dataclass(frozen=True)
class _DetectorWork:
    """A detector, the pictures, the category id of each label, and how pictures are loaded."""

    detector: "TwoStageDetector"
    pictures: AnnotatedPictures
    category_ids: Sequence[Any]
    options: DetectionOptions

    def __call__(self, places: Sequence[int], bar: tqdm) -> PartRecord:
        part = PartRecord()
        loading = EvaluationLoading(
            batch_size=self.options.batch_size, workers=self.options.workers
        )
        found = detect_pictures(self.detector, self.pictures, places, loading)
        for place, item in zip(places, found, strict=True):
            bar.update()
            if isinstance(item, FoundObjects):
                part.results += self._records(item)
                if item.picture.warning is not None:
                    part.faults.append((place, item.picture.warning))
            else:
                part.faults.append((place, item))
        return part

    def _records(self, item: FoundObjects) -> list[dict[str, Any]]:
        """Return COCO results, without classes that are no category of the file."""
        records = coco_results(item, self.category_ids)
        return [record for record in records if record["category_id"] is not None]


def _open(options: DetectionOptions) -> "TwoStageDetector":
    # Imported here: it brings open_clip, which takes seconds that `--help` need not wait for.
    from clim_models.detection import open_detector

    assert options.checkpoint is not None
    return open_detector(
        options.checkpoint, device=pick_device(options.device), trusted=options.trust
    )


def _coverage(
    truth: DetectionTruth, written: Written, unread: Collection[Any]
) -> tuple[Coverage, ...]:
    """Return the coverage of images and of annotations."""
    images = len(truth.records.images)
    boxes = len(truth.contents(unread)["annotations"])
    others = len(truth.contents()["annotations"]) - boxes
    by_rule = {"of an image that is left out": others} if others else {}
    refused = [one for one in truth.faults() if not _is_of_image(one)]
    of_images = [one for one in truth.faults() if _is_of_image(one)]
    return (
        Coverage.of("images", images - len(written.unread), [*of_images, *written.faults]),
        Coverage("annotations", boxes, Coverage.of("", 0, refused).left_out, by_rule),
    )


def _is_of_image(fault: BrokenSample) -> bool:
    return ", annotation " not in fault.name


def _hash_classes(detector: "TwoStageDetector") -> str:
    digest = hashlib.sha256("\n".join(detector.names).encode())
    classes = detector.classes
    digest.update(classes.embeddings.float().cpu().contiguous().numpy().tobytes())
    digest.update(repr(classes.base).encode())
    return digest.hexdigest()[:16]
