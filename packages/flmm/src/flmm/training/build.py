"""From a `GroundingConfig` to the parts of a trainer: model, data, cache, loader and task."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from clim_data import PanopticNarratives, ReferringExpressions
from clim_data.processes import Ranks
from clim_data.readers import PROTOCOLS
from clim_data.streams import StreamOptions
from clim_train import Trainer, total_steps
from clim_train.commands import Machine, fit_length, fit_workers
from clim_train.options import choose_device, with_absolute_paths
from clim_train.run import seed_everything

from flmm.grounded import GroundedLMM, load_grounded
from flmm.training.config import GroundingConfig
from flmm.training.data import GroundingData, GroundingLoader
from flmm.training.feature_cache import FeatureCache, frozen_facts
from flmm.training.task import GroundingTask


def build_model(config: GroundingConfig) -> GroundedLMM:
    """Build the frozen models and the heads; new heads follow from `run.seed`, the same on every
    rank."""
    seed_everything(config.run.seed)
    wanted = config.model
    model = load_grounded(
        wanted.lmm, sam=wanted.sam, heads=wanted.heads, merge=wanted.merge, dtype=wanted.lmm_dtype
    )
    model.sam.frozen_encoder().to(getattr(torch, wanted.sam_dtype))
    for part in (model.mask_head, model.sam, model.heads.sam):
        part.set_grad_checkpointing(wanted.grad_checkpointing)
    return model


def build_sources(config: GroundingConfig) -> dict[str, GroundingData]:
    """Open the data sets under the names of their folders. Raises ValueError when none are named,
    or two are alike."""
    data = config.data
    if not data.narratives and not data.expressions:
        raise ValueError(
            "no training data: name folders of shards with --data.narratives FOLDER (see "
            "`clim-data pack png`) and "
            "--data.expressions FOLDER ... (see `clim-data pack refcoco`)"
        )
    names = [_name(shards) for shards in (*data.narratives, *data.expressions)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"several data sets are called {twice[0]!r}: rename their folders, the names tell them "
            "apart"
        )
    chosen = {**PROTOCOLS["train"], "seed": config.run.seed, "redraw": data.redraw}
    found: dict[str, GroundingData] = {
        _name(s): PanopticNarratives.from_shards(s) for s in data.narratives
    }
    return found | {
        _name(s): ReferringExpressions.from_shards(s, **chosen) for s in data.expressions
    }


def build_requests(config: GroundingConfig) -> dict[str, str]:
    """Return the request before the texts of each data set."""
    data = config.data
    narratives = {
        _name(shards): data.narrative_request or data.request for shards in data.narratives
    }
    return narratives | {_name(shards): data.request for shards in data.expressions}


def build_cache(
    config: GroundingConfig, model: GroundedLMM, sources: Mapping[str, GroundingData]
) -> FeatureCache | None:
    """Return the cache of this run's models and data, or None without a folder."""
    if config.cache.folder is None:
        return None
    stamps = {name: data.stamp() for name, data in sources.items()}
    facts = frozen_facts(model, data=stamps, requests=build_requests(config))
    rank, world_size = Ranks.of_group()
    limit = None if config.cache.max_gb is None else config.cache.max_gb * 1e9 / world_size
    return FeatureCache(config.cache.folder, facts, rank=rank, max_bytes=limit)


@dataclass(frozen=True)
class RunParts:
    """The parts of a run, see `build_parts`."""

    sources: dict[str, GroundingData]
    model: GroundedLMM
    loader: GroundingLoader
    task: GroundingTask


def build_parts(config: GroundingConfig) -> RunParts:
    """Build data, models and task of a run, in an existing process group.

    Raises:
        ValueError, FileNotFoundError: the data or a model cannot be used.
    """
    sources = build_sources(config)  # before the minutes that loading can take
    model = build_model(config)
    cache = build_cache(config, model, sources)
    loader = GroundingLoader(
        sources,
        model.lmm,
        square=model.sam.square,
        requests=build_requests(config),
        cache=cache,
        stream=StreamOptions(
            batch_size=config.data.batch_size,
            seed=config.run.seed,
            ranks=Ranks.of_group(),
            workers=config.data.workers,
            on_error=config.data.on_error,
        ),
    )
    task = GroundingTask(model, cache=cache, about=_about(config))
    return RunParts(sources, model, loader, task)


def build_trainer(
    config: GroundingConfig,
    *,
    resume: bool = False,
    program: str = "flmm train",
    given: frozenset[str] | None = None,
) -> Trainer:
    """Build everything that a run needs; `start_distributed` has made the process group already.

    Args:
        config: of the run.
        resume: continue the newest checkpoint of its folder.
        program: the command to name in messages.
        given: options that the user gave: workers, the warm-up and the lines of metrics may be
            chosen for the machine and the data. None chooses nothing.

    Raises:
        ValueError, FileNotFoundError: as `build_parts`, or as `Trainer`.
    """
    if given is not None:
        config = fit_workers(config, Machine.of_process(choose_device(config.engine)), given)
    parts = build_parts(config)
    if given is not None:
        steps = total_steps(len(parts.loader), config.engine.accumulation, config.schedule)
        config = fit_length(config, steps, given)
    return Trainer(config, parts.task, parts.loader, resume=resume, program=program)


def build_task_alone(config: GroundingConfig) -> GroundingTask:
    """Build the task of a run for an export, without its data."""
    return GroundingTask(build_model(config), about=_about(config))


def _about(config: GroundingConfig) -> dict[str, str]:
    """Return the facts in a folder of heads about the models of their training."""
    model = with_absolute_paths(config.model)
    return {"lmm": model.lmm, "sam": model.sam, "merge": model.merge}


def _name(shards: str) -> str:
    path = Path(shards)
    return (path.parent if path.suffix == ".tar" else path).name
