"""Write the catalogue of recipes anew: `python -m clim_train.commands.record_recipes`.

It takes minutes: the memory of each recipe comes from a trace of its step.
"""

from dataclasses import asdict, replace

from clim_data.files import write_json
from tqdm import tqdm

from clim_train.estimate import estimate
from clim_train.recipes.catalogue import CATALOGUE
from clim_train.recipes.registry import Recipe
from clim_train.recipes.table import RECIPES, summarize


def main() -> None:
    """Estimate every recipe, and write the file."""
    found = {}
    for name, entry in tqdm(RECIPES.items()):
        found[name] = asdict(replace(summarize(name, entry), gb=memory_gb(entry)))
    write_json(CATALOGUE, found, indent=2)


def memory_gb(entry: Recipe) -> float:
    """Return the memory of one of the recipe's GPUs, in GB with one digit."""
    memory = estimate(entry(), gpus=entry.facts.gpus, tflops=1.0).memory
    return round(memory.total / 1e9, 1)


if __name__ == "__main__":
    main()
