"""The example that ships with flmm: trained heads of the demo LMM, and scenes to use them on."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from clim_data.drawings import NarrativeScenes
from clim_data.files import write_json, write_whole
from clim_models.checkpoints import read_tensors

from flmm.demo.model_files import read_shipped, write_demo_model
from flmm.demo.sam import write_demo_sam
from flmm.demo.scenes import compose_demo_scenes

HEADS = Path(__file__).parent / "weights" / "demo_heads.safetensors"
HEADS_FILE = "heads.safetensors"
COMMAND = "hatch run flmm-quickstart --train --ship"
SCENES = 6
# A scene that is grounded well: docs/flmm_quickstart.md has the figures of all. The first three
# things are in it, the last one is not.
CHOSEN = 4
PHRASES = ("a rose", "a crown", "a carrot", "a penguin")


@dataclass(frozen=True)
class Example:
    """Paths of an example. checkpoint: folder of the heads, which names LMM and SAM. scenes: of the
    unseen vendor. phrases: for the chosen one."""

    checkpoint: Path
    scenes: NarrativeScenes
    phrases: tuple[str, ...] = PHRASES

    @property
    def images(self) -> Path:
        """Folder of the pictures."""
        return self.scenes.scenes.images

    @property
    def image(self) -> Path:
        """The picture of the phrases."""
        return sorted(self.images.iterdir())[CHOSEN]


def write_example(folder: str | Path, *, scenes: int = SCENES) -> Example:
    """Write the demo LMM, the demo SAM, their trained heads, and scenes of the unseen vendor.

    Files of an earlier example are replaced.

    Raises:
        FileNotFoundError: there is no file of weights.
        ValueError: a file of weights is damaged.
    """
    folder = Path(folder)
    if not HEADS.is_file():
        raise FileNotFoundError(
            f"no trained heads at {HEADS}: make them with `{COMMAND} {HEADS}`, or reinstall flmm"
        )
    read_shipped(HEADS, read_tensors, command=f"{COMMAND} {HEADS}")
    write_demo_model(folder / "lmm")
    write_demo_sam(folder / "sam")
    model = folder / "run" / "model"
    model.mkdir(parents=True, exist_ok=True)
    with write_whole(model / HEADS_FILE) as draft:
        shutil.copyfile(HEADS, draft)
    write_json(model / "grounding.json", {"lmm": "../../lmm", "sam": "../../sam"}, indent=2)
    composed = compose_demo_scenes(folder / "scenes" / "test", "test", count=scenes)
    return Example(folder / "run", composed)
