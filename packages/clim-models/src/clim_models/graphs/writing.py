"""Graphs as files, each compared with the model at sizes that it was not traced with."""

import contextlib
import io
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clim_models.checkpoints.atomic import write_json, write_whole
from clim_models.graphs.modules import BoxGraph, DenseGraph
from clim_models.graphs.padding import fixed_padding
from clim_models.region_model import RegionModel
from clim_models.text.vocabulary import EmbeddedVocabulary
from clim_models.towers.evaluation import evaluation_mode
from clim_models.version import __version__

if TYPE_CHECKING:
    from clim_models.graphs.proposals import ProposalGraph

Runner = Callable[[Sequence[Tensor]], list[Tensor]]
GRAPHS: Mapping[str, type[DenseGraph]] = {"dense": DenseGraph, "boxes": BoxGraph}
FORMATS = ("onnx", "pt2")
# Largest difference of a cosine between a file and the model.
TOLERANCE = 1e-4
# Grids and numbers of images, boxes and classes with which every file is tried, in this order:
# those of the trace, then others. The native grid of the model comes last.
TRACED = ((5, 7), (2, 3, 3))
FOREIGN = (((9, 4), (3, 5, 2)), ((2, 6), (1, 1, 4)))
_NO_ONNX = (
    'ONNX needs three packages: pip install onnx onnxruntime onnxscript, or pass formats=["pt2"]'
)


@dataclass(frozen=True)
class GraphReport:
    """A file that was written.

    Attributes:
        path: of the file.
        difference: largest difference of a cosine from the model, over all sizes that were tried.
        sizes: (height, width) of the pixels that were tried.
    """

    path: Path
    difference: float
    sizes: tuple[tuple[int, int], ...]


def export_graphs(
    model: RegionModel,
    folder: str | Path,
    *,
    graphs: Sequence[str] = ("dense", "boxes"),
    formats: Sequence[str] = FORMATS,
    vocabulary: EmbeddedVocabulary | None = None,
) -> list[GraphReport]:
    """Write graphs of a model that run without this package, and `graphs.json` about them.

    Number and size of the pictures, of boxes and of classes may change from call to call; sides are
    multiples of the stride, at least two. Every file is compared with the model on pictures of
    other sizes than those of the trace.

    Args:
        model: in fp32.
        folder: is made if it is not there.
        graphs: "dense" and "boxes", see `DenseGraph` and `BoxGraph`.
        formats: "onnx" (ONNX, with onnxruntime) and "pt2" (torch.export).
        vocabulary: classes whose vectors are written to `classes.npy`, an input of the graphs, and
            whose names to `graphs.json`.

    Raises:
        ImportError: ONNX without its packages; the message has the `pip install` line.
        ValueError: an unknown graph or format, a model in another precision, a tower that
            torch.export cannot trace, or a file that differs or does not run at another size.
    """
    _check_choice("graphs", graphs, GRAPHS)
    check_request(model.dtype, formats)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    reports = []
    with evaluation_mode(model), torch.no_grad():
        for name in graphs:
            graph = GRAPHS[name](model).eval()
            program = trace(
                graph, graph.examples(*TRACED), f"{name} graph of this {model.tower_kind}"
            )
            for kind in formats:
                path = folder / f"{name}.{kind}"
                write_graph(program, path)
                reports.append(_compare_file(graph, path, model))

    write_classes(folder, vocabulary)
    write_json(folder / "graphs.json", _description(model, reports, vocabulary))
    return reports


def write_classes(folder: Path, vocabulary: EmbeddedVocabulary | None) -> None:
    """Write the vectors of a vocabulary, if there is one, to `classes.npy`."""
    if vocabulary is None:
        return
    vectors = vocabulary.embeddings.float().cpu().numpy()
    with write_whole(folder / "classes.npy") as draft, draft.open("wb") as stream:
        np.save(stream, vectors)


def _check_choice(what: str, given: Sequence[str], legal: Collection[str]) -> None:
    if not given or any(one not in legal for one in given):
        raise ValueError(f"{what}={list(given)}: choose from {', '.join(legal)}")


def check_request(dtype: torch.dtype, formats: Sequence[str]) -> None:
    """Refuse formats that are not known or cannot be written, and models in another precision.

    Raises:
        ImportError: ONNX without its packages.
        ValueError: an unknown format, or another precision.
    """
    _check_choice("formats", formats, FORMATS)
    if dtype != torch.float32:
        raise ValueError(f"the model is in {dtype}: build it with precision='fp32'")
    needed = ("onnx", "onnxscript", "onnxruntime")
    if "onnx" in formats and not all(find_spec(name) for name in needed):
        raise ImportError(_NO_ONNX)


def trace(
    graph: "DenseGraph | ProposalGraph", examples: tuple[Tensor, ...], title: str
) -> torch.export.ExportedProgram:
    """Trace a graph for any sizes; `title` names it in a message.

    Raises:
        ValueError: torch.export cannot.
    """
    try:
        with _quiet(), fixed_padding(graph):
            return torch.export.export(graph, examples, dynamic_shapes=graph.shapes(), strict=False)
    except Exception as error:  # it raises many kinds
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"torch.export cannot trace the {title} tower ({reason}): export a model "
            "with another tower"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide torch's messages about its own versions and progress."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def write_graph(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a traced graph in the format of the file's ending."""
    write = _write_onnx if path.suffix == ".onnx" else _write_pt2
    write(program, path)


def _write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    with _quiet():
        found = torch.onnx.export(program, dynamo=True, verbose=False)
        assert found is not None
        with write_whole(path) as draft:
            found.save(draft, external_data=False)


def _write_pt2(program: torch.export.ExportedProgram, path: Path) -> None:
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer)
    with write_whole(path) as draft:
        draft.write_bytes(buffer.getvalue())


def _compare_file(graph: DenseGraph, path: Path, model: RegionModel) -> GraphReport:
    """Compare a file with the model.

    Raises:
        ValueError: a cosine differs, or the file does not run at another size.
    """
    run = open_file(path, graph.inputs)
    native = (
        max(2, model.image_size[0] // model.stride),
        max(2, model.image_size[1] // model.stride),
    )
    tried = []
    largest = 0.0
    for grid, numbers in (TRACED, *FOREIGN, (native, (1, 2, 2))):
        inputs = graph.examples(grid, numbers)
        (found,) = run(inputs)
        expected = graph(*inputs).cpu()
        largest = max(largest, float((found - expected).abs().max()))
        tried.append((inputs[0].shape[2], inputs[0].shape[3]))
    if not largest <= TOLERANCE:
        raise ValueError(
            f"{path} differs from the model by {largest:.2g} in a cosine, more than {TOLERANCE}: "
            "do not use it; another version of torch or onnxruntime may write it right"
        )
    return GraphReport(path, largest, tuple(tried))


def open_file(path: Path, names: Sequence[str]) -> Runner:
    """Return a function from inputs to the outputs of a file, on the CPU.

    It raises ValueError where the file does not run with the sizes of its inputs.
    """
    run = _open_program(path) if path.suffix == ".pt2" else _open_onnx(path, names)

    def run_or_explain(inputs: Sequence[Tensor]) -> list[Tensor]:
        try:
            return run(inputs)
        except Exception as error:  # torch and onnxruntime raise many kinds
            reason = str(error).strip().partition("\n")[0][:200]
            raise ValueError(
                f"{path} does not run with pixels of shape {tuple(inputs[0].shape)} ({reason}): do "
                "not use it; torch 2.11 and later write it right"
            ) from error

    return run_or_explain


def _open_program(path: Path) -> Runner:
    with _quiet():
        loaded = torch.export.load(path).module()

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        outputs = loaded(*inputs)
        return [one.cpu() for one in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run


def _open_onnx(path: Path, names: Sequence[str]) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        given = {name: value.cpu().numpy() for name, value in zip(names, inputs, strict=True)}
        return [torch.from_numpy(one) for one in session.run(None, given)]

    return run


def _description(
    model: RegionModel, reports: Sequence[GraphReport], vocabulary: EmbeddedVocabulary | None
) -> dict[str, Any]:
    """Return the content of `graphs.json`."""
    files = {
        report.path.name: {"largest_difference": report.difference, "tried_px": report.sizes}
        for report in reports
    }
    return {
        "clim_models": __version__,
        "torch": torch.__version__,
        "model": model.name,
        "stride": model.stride,
        "read_at_px": model.eval_px or max(model.image_size),
        "temperature": model.logit_scale.detach().exp().item(),
        "inputs": {
            "pixels": "uint8 RGB (B, 3, H, W), sides are multiples of stride",
            "boxes": "float32 (R, 5): number of the image, x0, y0, x1, y1 in [0, 1]",
            "classes": "float32 (K, C), unit rows; classes.npy, if it is there",
        },
        "outputs": {"dense": "cosines (B, K, h, w)", "boxes": "cosines (R, K)"},
        "classes": None if vocabulary is None else list(vocabulary.vocabulary.names),
        "files": files,
    }
