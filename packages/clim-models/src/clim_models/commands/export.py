"""`clim-models export`: graphs of a model for onnxruntime and torch, with classes as an input."""

from argparse import ArgumentDefaultsHelpFormatter, Namespace
from pathlib import Path
from typing import Any

HELP = "write ONNX and torch.export graphs of the dense map and of named boxes, or of a detector"


def add(commands: Any) -> None:
    """Add the command to the subparsers of `clim-models`."""
    parser = commands.add_parser(
        "export",
        help=HELP,
        description=f"{HELP[0].upper()}{HELP[1:]}. Picture sizes may change, and class vectors are "
        "an input. Every file is compared with the model at other sizes than those of its trace.",
        formatter_class=ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--model", metavar="NAME", help="open_clip name, or clim-tiny; a run folder knows its own"
    )
    parser.add_argument(
        "--pretrained", metavar="TAG_OR_PATH", help="open_clip tag, file, or run folder"
    )
    parser.add_argument(
        "--detector",
        metavar="RUN",
        help="a detector in place of a model: its proposals and their scores, before suppression",
    )
    parser.add_argument(
        "--graphs", nargs="+", choices=("dense", "boxes"), default=["dense", "boxes"]
    )
    parser.add_argument("--formats", nargs="+", choices=("onnx", "pt2"), default=["onnx", "pt2"])
    words = parser.add_mutually_exclusive_group()
    words.add_argument(
        "--labels", nargs="+", metavar="NAME", help="classes whose vectors go to classes.npy"
    )
    words.add_argument(
        "--vocabulary", type=Path, metavar="JSON", help="a vocabulary file in place of --labels"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let a folder from a stranger name a model that may bring code",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write, made if needed"
    )
    parser.set_defaults(run=run)


def run(options: Namespace) -> None:
    """Write the graphs and print their difference from the model."""
    # Imported here: it brings torch, which help and mistakes need not wait for.
    from clim_models.detection.folders import open_detector
    from clim_models.graphs.detector_files import check_detector, export_detector
    from clim_models.graphs.writing import export_graphs
    from clim_models.pipelines.options import PipelineOptions
    from clim_models.pipelines.tasks import load_clip, load_vocabulary
    from clim_models.text.vocabulary import embed_vocabulary

    words, read_example = load_vocabulary(options.labels, options.vocabulary)
    detector = None
    if options.detector is None:
        chosen = PipelineOptions(trusted=options.trust)
        model = load_clip(options.model, options.pretrained, "cpu", chosen)
    elif options.model or options.pretrained:
        raise ValueError("--detector has a tower of its own: leave out --model and --pretrained")
    else:
        detector = open_detector(options.detector, trusted=options.trust)
        check_detector(detector)
        model = detector.text
    vocabulary = None
    if words is not None:
        if model is None:
            raise ValueError(
                "this detector has no text tower that could embed names: leave out --labels and "
                "--vocabulary"
            )
        vocabulary = embed_vocabulary(model, words, read_example=read_example)

    if detector is not None:
        reports = export_detector(
            detector, options.out, formats=options.formats, vocabulary=vocabulary
        )
    else:
        reports = export_graphs(
            model,
            options.out,
            graphs=options.graphs,
            formats=options.formats,
            vocabulary=vocabulary,
        )
    for report in reports:
        size = report.path.stat().st_size / 1e6
        print(
            f"{report.path}: {size:.1f} MB, at most {report.difference:.1e} from the model in "
            f"{len(report.sizes)} picture sizes"
        )
    print(f"inputs, stride and names: {options.out / 'graphs.json'}")
