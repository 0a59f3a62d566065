"""Floors of each package: a folder imports only from lower floors of its package.

A name is a folder or a module next to the folders. A folder inside a folder has its own line when
it stands on another floor. Modules of one folder may import each other.
"""

from collections.abc import Iterator, Mapping

from house.measures import House

FLOORS: dict[str, dict[str, int]] = {
    "clim_data": {
        "commands": 7,
        "drawings": 6,
        "streams": 6,
        "derive": 6,
        "readers": 5,
        "matching": 5,
        "doctor": 5,
        "survey": 5,
        "sources": 4,
        "annotations": 3,
        "processes": 3,
        "files": 2,
        "pixels": 2,
        "command_line": 1,
        "datasets": 1,
        "faults": 1,
        "lazy": 0,
        "version": 0,
    },
    "clim_models": {
        "commands": 11,
        "pipelines": 10,
        "hub": 8,
        "graphs": 10,
        "detection": 9,
        "detection.heads": 8,
        "detection.features": 7,
        "detection.boxes": 1,
        "create": 7,
        "export": 7,
        "image_side": 7,
        "region_model": 6,
        "wrapper": 5,
        "foreign": 4,
        "text": 4,
        "survey": 4,
        "encoding": 3,
        "names": 3,
        "towers": 2,
        "tiny": 2,
        "more_models": 2,
        "checkpoints": 1,
        "losses": 1,
        "heads": 1,
        "features": 1,
        "pooling": 1,
        "open_clip_compat": 1,
        "hub_compat": 0,
        "shipped": 0,
        "lazy": 0,
        "version": 0,
    },
    "clim_eval": {
        "commands": 5,
        "labelling": 4,
        "detection": 4,
        "evaluators": 3,
        "class_vectors": 3,
        "reports": 2,
        "embeddings": 2,
        "pictures": 1,
        "metrics": 1,
        "model_loading": 1,
        "text_tower": 1,
        "version": 0,
    },
    "clim_train": {
        "quickstart": 10,
        "compare": 10,
        "detect_quickstart": 11,
        "experiments.detection": 10,
        "experiments.comparison": 9,
        "commands": 9,
        "estimate": 8,
        "build": 7,
        "trainer": 6,
        "export": 5,
        "run_files": 5,
        "engine": 4,
        "recipes": 4,
        "config": 3,
        "methods": 2,
        "schedule": 2,
        "run": 1,
        "options": 1,
        "experiments": 1,
        "step_cost": 1,
        "task": 0,
        "transfer": 0,
        "version": 0,
    },
    "flmm": {
        "web": 9,
        "commands": 8,
        "experiments": 7,
        "evaluation": 7,
        "training": 6,
        "grounders": 6,
        "dialogue": 6,
        "grounded": 5,
        "samples": 4,
        "heads": 4,
        "pictures": 4,
        "adapters.families": 4,
        "adapters": 3,
        "adapters.authors": 2,
        "attention": 2,
        "refiners.sam": 2,
        "demo": 2,
        "refiners": 1,
        "text": 1,
        "hub": 1,
        "transformers_compat": 1,
        "version": 0,
    },
}


def place_of(module: str) -> str | None:
    """Return the line of FLOORS that a module belongs to: the longest name that begins its own.

    None for the `__init__` and `__main__` of a package. A module without a line is a KeyError.
    """
    package, _, rest = module.partition(".")
    if rest in ("", "__main__"):
        return None

    while rest:
        if rest in FLOORS[package]:
            return rest
        rest = rest.rpartition(".")[0]
    raise KeyError(f"{module} has no floor: add its folder to tests/house/floors.py")


def arrows_up(arrows: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield `source -> target` for each import inside a package that leads to no lower floor."""
    for source, targets in sorted(arrows.items()):
        package = source.split(".")[0]
        here = place_of(source)
        if here is None:
            continue

        for target in sorted(targets):
            there = place_of(target) if target.split(".")[0] == package else None
            if there is None or there == here:
                continue
            if FLOORS[package][there] >= FLOORS[package][here]:
                yield f"{source} -> {target}"


def unused_lines(house: House) -> list[str]:
    """Find lines of FLOORS that no module belongs to."""
    used = set()
    for module in house.modules:
        used.add((module.split(".")[0], place_of(module)))

    lines = [(package, place) for package, floors in FLOORS.items() for place in floors]
    return [f"{package}.{place}" for package, place in lines if (package, place) not in used]
