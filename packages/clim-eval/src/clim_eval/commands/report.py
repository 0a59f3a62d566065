"""`clim-eval report`: several reports side by side."""

from argparse import Namespace
from itertools import chain
from pathlib import Path

from clim_data.command_line import Commands, add_command, add_option

from clim_eval.commands.shared import check_report_folder
from clim_eval.pictures.bars import accuracy_bars
from clim_eval.reports.coverage import coverage_from_json
from clim_eval.reports.report import combine_reports, read_report, write_report
from clim_eval.reports.tables import metric_table


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(commands, "report", run, "put several reports side by side")
    parser.add_argument(
        "reports", nargs="+", type=Path, metavar="RUN_OR_JSON", help="report.json or its folder"
    )
    parser.add_argument("--title", default="Comparison", help="title of the report")
    add_option(parser, "--out", metavar="DIR", help="folder for report.json, report.md and figures")


def run(options: Namespace) -> None:
    """Put several reports side by side."""
    check_report_folder(options.out)
    reports = {}
    for path in options.reports:
        name = path.parent.name if path.name == "report.json" else path.name.removesuffix(".json")
        name = name or str(path)
        if name in reports:  # two runs of one name are distinguished by their folders
            name = str(path)
        reports[name] = read_report(path)
    arms = combine_reports(reports)
    coverage = []
    for name, report in reports.items():
        parts = coverage_from_json(report.get("coverage", {}))
        coverage += [part.of_part(name) for part in parts]

    print(metric_table(arms))
    for part in coverage:
        print(part.sentence())
    if options.out:
        names = dict.fromkeys(chain.from_iterable(arms.values()))
        fractions = [name for name in names if _is_main(name)]
        figures = {}
        if fractions:
            figures["comparison"] = accuracy_bars(arms, metrics=fractions, title=options.title)

        config = {name: report["config"] for name, report in reports.items()}
        data = {name: report.get("data") for name, report in reports.items()}
        write_report(
            options.out,
            title=options.title,
            metrics=arms,
            config=config,
            figures=figures,
            data=data,
            coverage=coverage,
        )
        print(f"report: {options.out / 'report.md'}")


def _is_main(name: str) -> bool:
    return name.endswith((".thing.mAcc1", ".stuff.mAcc1", "top1", "R@1"))
