"""Puts the results of a comparison into a Markdown page.

``python -m clim_train.experiments.comparison.page REPORT PAGE``

The part of the page between the lines BEGIN and END is replaced by the tables of
REPORT/report.json, and its figures are copied to `figures/` next to the page. Text outside of it
stays.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from clim_data.pixels import FORMATS
from clim_eval import read_report
from PIL import Image

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
CAPTIONS = {
    "region accuracy against retrieval": "Region accuracy against retrieval",
    "region accuracy against zero-shot": "Region accuracy against zero-shot classification",
}


def fill_page(report_folder: Path, page: Path) -> None:
    """Replace the results of `page`.

    Raises ValueError when the page has no lines for the results, or the report is not one of a
    comparison, and FileNotFoundError when there is no report.
    """
    report = read_report(report_folder)
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(
            f"{page} has no place for results: add a line {BEGIN} and, below it, a line {END}"
        )
    if "arms" not in report["config"]:
        raise ValueError(
            f"{report_folder} holds no comparison: pass the folder of `hatch run compare`"
        )
    pictures = copy_figures(report, report_folder, page.parent / "figures")
    head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    page.write_text("\n\n".join([head, results(report), *pictures, tail]), encoding="utf-8")


def results(report: dict) -> str:
    """Return Markdown: the tables of a comparison's report and of what they were made with."""
    config, versions = report["config"], report["versions"]
    made = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "clim-train") if versions.get(name)
    )
    seeds = ", ".join(map(str, config["seeds"]))
    steps = config["options"]["steps"]
    facts = (
        f"{steps} steps per arm, seeds {seeds}; made {report['created'][:10]} on "
        f"{config['machine']} with {made}."
    )
    return "\n\n".join([facts, *report["notes"]])


def copy_figures(report: dict, report_folder: Path, target: Path) -> list[str]:
    """Copy the curves, in 256 colours, as compare_*.png and return the Markdown that shows them.

    Maps stay in the report: on one scale, those of a method with low cosines look empty.
    """
    target.mkdir(parents=True, exist_ok=True)
    shown = []
    for name, title in CAPTIONS.items():
        if name not in report["figures"]:
            continue
        path = report["figures"][name]
        file = f"compare_{Path(path).name}"
        with Image.open(report_folder / path, formats=FORMATS) as picture:
            # 256 colours: a repository keeps every version of its pictures for good.
            picture.convert("RGB").quantize(256).save(target / file, optimize=True)
        shown.append(f"![{title}](figures/{file})")
    return shown


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="folder of a finished comparison")
    parser.add_argument(
        "page", type=Path, nargs="?", default=Path("docs/comparison.md"), help="page to fill"
    )
    args = parser.parse_args(argv)
    try:
        fill_page(args.report, args.page)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    print(f"{args.page}: results of {args.report}")


if __name__ == "__main__":
    main()
