"""Build a RegionModel from an open_clip name and weights from anywhere."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from clim_models.checkpoints.about import ABOUT_FILE, OPEN_CLIP_FILE, eval_px_of, read_object
from clim_models.checkpoints.load import export_folder, load_checkpoint
from clim_models.checkpoints.tensor_files import check_values
from clim_models.foreign import check_foreign_config
from clim_models.hub_compat import cache_alone_without_hub
from clim_models.more_models import build_tipsv2, is_tipsv2, weights_repository
from clim_models.names import has_scheme, model_config
from clim_models.open_clip_compat import (
    OpenClipModel,
    how_to_fetch,
    is_not_fetched,
    no_weights_yet,
    set_statistics,
)
from clim_models.region_model import RegionModel
from clim_models.shipped import AFTER_CLIM, NO_WEIGHTS, SHIPPED_TAGS, TINY

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def create_model(
    name: str,
    pretrained: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    precision: str = "fp32",
    *,
    device: str | torch.device = "cpu",
    antialias: bool = False,
    partial_patches: str = "error",
    box_patches: str = "nearest",
) -> RegionModel:
    """Build a RegionModel.

    Args:
        name: of `python -m clim_models.survey`, or "clim-tiny".
        pretrained: a tag of open_clip, a local `.pt` or `.safetensors`, or a run folder of ours.
            "clim-tiny" has the tags "emoji-clim" and "emoji". "none" leaves the weights random, as
            does None, except for "clim-tiny", where None is "emoji-clim".
        image_size: side, or (H, W), that evaluation should use. Weights do not change, since
            position embeddings follow the image anyway. None keeps the size of the pretraining.
        precision: "fp32", "bf16" or "fp16": the dtype of all weights and features.
        device: where the model goes.
        antialias, partial_patches, box_patches: see `RegionModel`.

    Raises:
        ValueError: unknown name (close ones are listed), tag, precision or option, or weights that
            do not fit.
        FileNotFoundError: `pretrained` looks like a path and is not there, or is a tag whose
            weights are not in the cache and cannot be fetched.
        ImportError: the model needs an extra; the message has the `pip install` line.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}; legal values are {', '.join(PRECISIONS)}")
    config = model_config(name)
    if has_scheme(name):
        check_foreign_config(config, name)
    # Nobody is warned of random weights that were asked for, or that others will replace.
    quiet = pretrained is not None
    pretrained = _chosen_weights(name, pretrained)
    tag = _tag(name, pretrained)

    clip = _build_clip(name, tag, quiet=quiet)
    model = RegionModel(
        clip, antialias=antialias, partial_patches=partial_patches, box_patches=box_patches
    )
    if has_scheme(name):
        _check_foreign_model(model, name)
    model.name = name
    model.config = config
    _describe_weights(model, tag, pretrained)
    if pretrained is not None and tag is None:
        weights = _local_weights(name, pretrained, config)
        load_checkpoint(model, weights)
        model.eval_px = eval_px_of(weights)
    if isinstance(image_size, int):
        model.image_size = (image_size, image_size)
    elif image_size is not None:
        model.image_size = (image_size[0], image_size[1])
    return model.to(device=device, dtype=PRECISIONS[precision]).eval()


def _build_clip(name: str, tag: str | None, *, quiet: bool) -> OpenClipModel:
    """Build the open_clip model, with the weights of a tag if there is one.

    Args:
        quiet: do not warn of random weights.

    Raises:
        FileNotFoundError: the weights of the tag are not here and cannot be fetched.
    """
    if name == TINY:
        # Its packages are an extra: imported only where they are used.
        from clim_models.tiny import build_clim_tiny

        return build_clim_tiny(tag)
    if is_tipsv2(name):
        return build_tipsv2(model_config(name))

    try:
        with cache_alone_without_hub(), no_weights_yet() if quiet else nullcontext():
            clip = open_clip.create_model(name, pretrained=tag, pretrained_hf=False)
    except (RuntimeError, OSError) as error:
        if not is_not_fetched(error):
            raise
        raise FileNotFoundError(_missing(name, tag)) from error
    except (TypeError, ValueError, AttributeError, KeyError, AssertionError) as error:
        if not has_scheme(name):
            raise
        raise ValueError(
            f"{name} cannot be built from its configuration ({error}): fetch or export it again"
        ) from error
    if tag is None:
        _set_preprocessing(clip, name)
    return clip


def _check_foreign_model(model: RegionModel, name: str) -> None:
    """Check the weights and the statistics of pixels that open_clip read from a folder.

    Raises:
        ValueError: some are no finite numbers.
    """
    state = model.clip.state_dict()
    check_values(state, state, source=name)
    numbers = [*model.image_mean, *model.image_std]
    sound = [one for one in numbers if isinstance(one, int | float) and math.isfinite(one)]
    if len(sound) != 6 or not all(model.image_std):
        raise ValueError(
            f"{name} has the pixel statistics mean={model.image_mean} and std={model.image_std}: "
            "write three numbers each into preprocess_cfg"
        )


def _missing(name: str, tag: str | None) -> str:
    """Describe the weights that cannot be fetched, and the fix."""
    if tag is None:
        return (
            f"no connection to the hub, and files that {name} needs are not in its cache: build "
            "the model once where there is a connection, and copy the cache (HF_HOME)"
        )
    return (
        f"no connection to the hub, and the weights {tag!r} of {name} are not in its cache: fetch "
        f"them where there is one ({how_to_fetch(name, tag)}), and pass the file; clim-tiny needs "
        "no download"
    )


def _chosen_weights(name: str, pretrained: str | Path | None) -> str | Path | None:
    """Return the requested weights; None for random ones."""
    if pretrained is None and name == TINY:
        return AFTER_CLIM
    return None if pretrained == NO_WEIGHTS else pretrained


def _describe_weights(model: RegionModel, tag: str | None, pretrained: str | Path | None) -> None:
    """Set the attributes of the model that describe its weights."""
    assert model.name is not None
    if pretrained is not None:
        model.pretrained = str(pretrained)
    elif not has_scheme(model.name):  # such a name has led to weights itself
        model.pretrained = NO_WEIGHTS

    if model.name == TINY and tag is not None:
        from clim_models.tiny import shipped_facts

        facts = shipped_facts(tag)
        model.knows = facts.get("knows")
        model.eval_px = int(facts["eval_px"]) if "eval_px" in facts else None


def _tag(name: str, pretrained: str | Path | None) -> str | None:
    """Return the tag that `pretrained` means, or None for a path (or nothing).

    Raises:
        ValueError: an unknown tag, or one whose weights need another model name.
        FileNotFoundError: a path that is not there.
    """
    if pretrained is None:
        return None
    tags = [*SHIPPED_TAGS] if name == TINY else list_pretrained_tags_by_model(name)
    if str(pretrained) in tags:
        wanted = name != TINY and get_pretrained_cfg(name, str(pretrained)).get("quick_gelu", False)
        if wanted and not model_config(name).get("quick_gelu", False):
            raise ValueError(
                f"weights {pretrained!r} need QuickGELU; use the model name '{name}-quickgelu'"
            )
        return str(pretrained)

    if Path(pretrained).exists():
        return None
    repository = weights_repository(name)
    known = ", ".join(tags) or "none for this model"
    if repository is not None:
        known += f"; its weights are a file: hf download {repository}"
    if Path(pretrained).suffix or "/" in str(pretrained):
        raise FileNotFoundError(
            f"no weights at {pretrained}; check the path, or pass a tag: {known}"
        )
    raise ValueError(
        f"unknown weights {pretrained!r} for {name!r}; pass a path or one of the tags: {known}"
    )


def _local_weights(name: str, pretrained: str | Path, config: dict) -> Path:
    """Return the path of local weights.

    An export must be of the same model: of its name, or else of exactly its configuration.

    Raises:
        ValueError: an export of another model.
    """
    path = export_folder(Path(pretrained))
    described = path / OPEN_CLIP_FILE
    if not described.is_file():
        return path

    exported_name = read_object(path / ABOUT_FILE).get("name")
    saved = read_object(described).get("model_cfg")
    if not isinstance(saved, Mapping):
        raise ValueError(f"{described} has no model_cfg: export the model again")
    keys = saved.keys() | config.keys()
    differing = sorted(key for key in keys if saved.get(key) != config.get(key))
    if exported_name != name and differing:
        raise ValueError(
            f"{path} holds {exported_name or 'another model'}, not {name!r} "
            f"(they differ in {differing}); pass that name"
        )
    return path


def _set_preprocessing(clip: OpenClipModel, name: str) -> None:
    """Set the mean and std of the pretraining, if all tags of the model agree on them."""
    known = [get_pretrained_cfg(name, tag) for tag in list_pretrained_tags_by_model(name)]
    found = {(tuple(c["mean"]), tuple(c["std"])) for c in known if c.get("mean") and c.get("std")}
    if len(found) == 1:
        mean, std = found.pop()
        set_statistics(clip, mean, std)
