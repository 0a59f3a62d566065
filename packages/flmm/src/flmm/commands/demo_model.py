"""`flmm demo-model FOLDER`."""

from argparse import Namespace
from pathlib import Path

from clim_data.command_line import Commands, add_command


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `flmm`."""
    parser = add_command(
        commands,
        "demo-model",
        run,
        "write the demo LMM, which needs no download, as a Hugging Face folder",
        description="Write the demo LMM, a LLaVA of one million parameters that describes composed "
        "scenes of emoji, as a Hugging Face folder. --lmm FOLDER takes it, and so does "
        "AutoModelForImageTextToText.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--scenes",
        type=int,
        default=0,
        metavar="N",
        help="also compose N test scenes, FOLDER/scenes",
    )


def run(options: Namespace) -> None:
    """Write the model, see `add`."""
    from flmm.demo.model_files import write_demo_model
    from flmm.demo.scenes import compose_demo_scenes

    if options.folder.exists() and any(options.folder.iterdir()):
        raise ValueError(f"{options.folder} is not empty: choose a new folder")
    folder, about = write_demo_model(options.folder)
    print(folder)
    if "test" in about:
        shares = ", ".join(f"{name} {100 * value:.0f} %" for name, value in about["test"].items())
        print(f"right on scenes of drawings it never saw: {shares}")
    if options.scenes:
        print(compose_demo_scenes(folder / "scenes", "test", count=options.scenes).scenes.images)
