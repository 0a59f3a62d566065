"""A detector as ONNX and torch.export files, each compared with it, and the suppression of boxes
that is left to the caller.

Letters: P proposals, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clim_models.checkpoints.atomic import write_json
from clim_models.detection.c4 import C4Detector
from clim_models.detection.choice import choose_boxes
from clim_models.detection.detector import TwoStageDetector
from clim_models.detection.rules import DetectionRules
from clim_models.graphs.c4_detector import C4Graph
from clim_models.graphs.detector import DetectorGraph
from clim_models.graphs.proposals import LEAST_GRID, ProposalGraph
from clim_models.graphs.writing import (
    FORMATS,
    TOLERANCE,
    GraphReport,
    check_request,
    open_file,
    trace,
    write_classes,
    write_graph,
)
from clim_models.text.vocabulary import EmbeddedVocabulary
from clim_models.towers.evaluation import evaluation_mode
from clim_models.version import __version__

NAME = "detector"
GRAPHS: Mapping[type, Callable[..., ProposalGraph]] = {
    TwoStageDetector: DetectorGraph,
    C4Detector: C4Graph,
}
# Grids and numbers of classes that a file is tried with: those of the trace, then others.
TRACED = ((LEAST_GRID, LEAST_GRID + 2), 3)
FOREIGN = (((LEAST_GRID + 5, LEAST_GRID), 5), ((LEAST_GRID + 2, LEAST_GRID + 8), 2))
# Roundings decide a few proposals that are nearly equal: this part of them must be the same.
SAME_PROPOSALS = 0.97
# Largest distance of the corners of the same box, in pixels.
SAME_CORNERS = 0.05


def export_detector(
    detector: TwoStageDetector | C4Detector,
    folder: str | Path,
    *,
    formats: Sequence[str] = FORMATS,
    vocabulary: EmbeddedVocabulary | None = None,
) -> list[GraphReport]:
    """Write a detector up to its scored proposals, and `graphs.json` about it.

    Size of the picture and classes may change from call to call; see `DetectorGraph` and `C4Graph`.
    `suppress_boxes` turns proposals into detections. Every file is compared with the detector on
    pictures of other sizes than those of the trace.

    Args:
        detector: on a frozen tower, or a C4 detector of Detic, in fp32.
        folder: is made if it is not there.
        formats: "onnx" (ONNX, with onnxruntime) and "pt2" (torch.export).
        vocabulary: classes whose vectors are written to `classes.npy`, and whose names to
            `graphs.json`.

    Raises:
        ImportError: ONNX without its packages.
        ValueError: a cascade of Detic, an unknown format, another precision, a tower that
            torch.export cannot trace, or a file whose scores differ.
    """
    check_detector(detector)
    check_request(next(detector.parameters()).dtype, formats)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    reports = []
    with evaluation_mode(detector), torch.no_grad():
        graph = GRAPHS[type(detector)](detector).eval()
        title = f"{NAME} graph of the {graph.tower_name or 'given'}"
        program = trace(graph, graph.examples(*TRACED), title)
        for kind in formats:
            path = folder / f"{NAME}.{kind}"
            write_graph(program, path)
            reports.append(_compare_file(graph, path))
    write_classes(folder, vocabulary)
    write_json(folder / "graphs.json", _description(graph, reports, vocabulary))
    return reports


def check_detector(detector: object) -> None:
    """Refuse detectors that cannot be exported.

    Raises:
        ValueError: a cascade of Detic.
    """
    if type(detector) not in GRAPHS:
        raise ValueError(
            f"a {type(detector).__name__} cannot be exported, because no graph of its stages and "
            "masks is written yet: export an F-ViT, a frozen-CLIP or a C4 detector"
        )


def suppress_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    *,
    score: float = DetectionRules.score,
    overlap: float = DetectionRules.overlap,
    per_image: int = DetectionRules.per_image,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose detections among scored proposals, class by class, for callers with numpy arrays.

    Args:
        boxes: (P, 4) XYXY.
        scores: (P, K).
        score: boxes need a higher score.
        overlap: IoU above which the box of lower score is dropped.
        per_image: at most this number of boxes.

    Returns:
        Boxes (n, 4), scores (n,) and labels (n,), by falling score.
    """
    rules = DetectionRules(score, overlap, per_image)
    found = choose_boxes(torch.from_numpy(boxes), torch.from_numpy(scores), rules)
    return found.boxes.numpy(), found.scores.numpy(), found.labels.numpy()


def _compare_file(graph: ProposalGraph, path: Path) -> GraphReport:
    """Compare a file with the detector.

    Raises:
        ValueError: proposals are missing, or a score differs.
    """
    run = open_file(path, graph.inputs)
    largest = 0.0
    tried = []
    for grid, classes in (TRACED, *FOREIGN):
        inputs = graph.examples(grid, classes)
        found, expected = run(inputs), [one.cpu() for one in graph(*inputs)]
        same, difference = _difference(found, expected)
        if same < SAME_PROPOSALS:
            raise ValueError(
                f"{path} finds {100 * same:.0f} % of the detector's proposals: do not use it; "
                "another version of torch or onnxruntime may write it right"
            )
        largest = max(largest, difference)
        tried.append((inputs[0].shape[2], inputs[0].shape[3]))
    if not largest <= TOLERANCE:
        raise ValueError(
            f"{path} differs from the detector by {largest:.2g} in a score, more than {TOLERANCE}: "
            "do not use it; another version of torch or onnxruntime may write it right"
        )
    return GraphReport(path, largest, tuple(tried))


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[float, float]:
    """Return which part of the proposals is the same, and the largest difference of its scores."""
    usable = expected[1].sum(1) > 0
    boxes, scores = expected[0][usable], expected[1][usable]
    if not len(boxes):
        return 1.0, 0.0
    distance = (boxes[:, None] - found[0][None]).abs().amax(2)  # (P, P)
    nearest = distance.min(1)
    same = nearest.values <= SAME_CORNERS
    differences = (scores - found[1][nearest.indices])[same].abs()
    return same.float().mean().item(), float(differences.max()) if len(differences) else 0.0


def _description(
    graph: ProposalGraph, reports: Sequence[GraphReport], vocabulary: EmbeddedVocabulary | None
) -> dict[str, Any]:
    """Return the content of `graphs.json`."""
    detections = graph.detections
    return {
        "clim_models": __version__,
        "torch": torch.__version__,
        "model": graph.tower_name,
        "stride": graph.multiple,
        **graph.sizes,
        "inputs": {
            "pixels": "uint8 RGB (1, 3, H, W), sides are multiples of stride, at least "
            f"{LEAST_GRID * graph.multiple}",
            **graph.about_inputs,
        },
        "outputs": {
            "boxes": "float32 (P, 4), XYXY in pixels, before suppression",
            "scores": "float32 (P, K); a row of zeros is no box",
        },
        "suppression": {
            "score": detections.score,
            "overlap": detections.overlap,
            "per_image": detections.per_image,
        },
        "classes": None if vocabulary is None else list(vocabulary.vocabulary.names),
        "base": [graph.classes.names[label] for label in graph.classes.base],
        "files": {
            report.path.name: {"largest_difference": report.difference, "tried_px": report.sizes}
            for report in reports
        },
    }
