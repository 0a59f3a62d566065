"""The parts of `gpu.py`, in the order in which they run: what would hurt users most if it were
broken comes first.

A part is a module of this folder with a function `run(part: Part) -> None`. It checks or times one
subject, and reports through `part` as it goes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A row of the table of parts.

    Args:
        module: name of the module, whose `run` is called.
        about: what it shows, for the printed table.
        seconds: limit of the part on a GPU; the process is ended after it.
    """

    module: str
    about: str
    seconds: int


PARTS: dict[str, Entry] = {
    "golden": Entry("gpu_parts.golden", "golden cases on the device in float32", 60),
    "training": Entry("gpu_parts.training", "three methods at each precision and ZeRO stage", 300),
    "launch": Entry("gpu_parts.launch", "runs started, stopped and resumed as users do", 240),
    "features": Entry(
        "gpu_parts.features", "encode_* on the device against the CPU, and in 16 bits", 120
    ),
    "sync": Entry("gpu_parts.sync", "no hidden synchronisation in a step or a dense forward", 120),
    "attention": Entry(
        "gpu_parts.attention", "rows of attention, generation, SAM and heads of flmm", 90
    ),
    "commands": Entry(
        "gpu_parts.commands", "clim-eval and flmm commands against their CPU reports", 120
    ),
    "detectors": Entry(
        "gpu_parts.detectors",
        "detectors against the CPU, what waits, heads beside torchvision's",
        180,
    ),
    "step_speed": Entry("gpu_parts.step_speed", "training steps of EVA02-B/16 and L/14", 90),
    "dense_speed": Entry("gpu_parts.dense_speed", "encode_dense and encode_boxes in images/s", 60),
    "grounding_speed": Entry(
        "gpu_parts.grounding_speed", "attention capture at 7B size, SAM decoder, an image", 60
    ),
    "input_speed": Entry(
        "gpu_parts.input_speed", "mosaics and letterboxes by number of workers", 60
    ),
}
