"""`clim-data doctor ROOT`: the contents of a folder, and which data sets are whole, broken or
missing."""

from argparse import Namespace

from clim_data import doctor, survey
from clim_data.command_line.parser import Commands, add_command
from clim_data.datasets import DATASETS


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-data`."""
    command = add_command(
        commands, "doctor", run, "say which data sets are whole, broken or missing"
    )
    command.add_argument("root", metavar="ROOT", help="folder that holds the data sets")
    command.add_argument(
        "--need",
        nargs="+",
        default=(),
        metavar="NAME",
        help=f"exit 0 only if these data sets are complete: {', '.join(DATASETS)}; the name of a "
        "recipe of clim-train, such as detic_lvis_clim, stands for what it trains on",
    )
    command.add_argument("--check-images", action="store_true", help="decode every image (minutes)")
    command.add_argument(
        "--check-json",
        action="store_true",
        help="parse every annotation file and count its entries",
    )
    command.add_argument("--json", action="store_true", help="print the findings as json")


def run(options: Namespace) -> int:
    """Print the findings; return 1 if a data set that is needed is incomplete.

    Without `--need` the folder's own content comes first. A folder that holds official data sets
    is judged by them alone.
    """
    found = doctor.diagnose(
        options.root,
        options.need,
        check_images=options.check_images,
        check_json=options.check_json,
    )
    if options.json:
        print(doctor.to_json(found))
    elif options.need:
        print(doctor.to_text(found))
    else:
        if not any(f.state == doctor.PRESENT for dataset in found for f in dataset.findings):
            own = survey.survey_folder(options.root, check_images=options.check_images)
            print(survey.survey_text(own))
        print(doctor.to_text(found, missing_whole=False))
    return 1 if options.need and not all(dataset.complete for dataset in found) else 0
