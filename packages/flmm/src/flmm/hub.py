"""Models from a folder or the Hugging Face hub; errors come at once and in one sentence.

Left to themselves the loaders ask an unreachable hub again and again for each of their files, for
minutes, also for a model that is on the disk already.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

ASK_S = 5.0
_CONFIGS = ("config.json", "projector/config.json")


def hub_options(name: str | Path, *, what: str) -> dict[str, bool]:
    """Return the options of transformers' `from_pretrained` for this source: {"local_files_only":
    True} where the hub is not there but the model is in its cache.

    Raises:
        FileNotFoundError: no such folder, and no hub id, or one that is not in the cache while the
            hub is not there.
    """
    if Path(name).is_dir():
        return {"local_files_only": True}
    text = str(name)
    if Path(name).exists():
        raise FileNotFoundError(
            f"{name} is a file: pass the folder of {what}, or a hub id such as OWNER/NAME"
        )
    if (
        text.startswith(("/", ".", "~"))
        or text.count("/") > 1
        or Path(name).suffix in (".pth", ".safetensors")
    ):
        raise FileNotFoundError(
            f"there is no folder {name}: pass the folder of {what}, or a hub id such as OWNER/NAME"
        )
    if (fault := _hub_fault(text)) is None:
        return {}
    from huggingface_hub import try_to_load_from_cache

    # HPT has no config.json of its own, its parts have.
    if any(isinstance(try_to_load_from_cache(text, file), str) for file in _CONFIGS):
        return {"local_files_only": True}
    raise FileNotFoundError(
        f"{text} is neither a folder here nor in the hub's cache, and the hub cannot be reached "
        f"({fault}): download "
        f"it where there is a network (`hf download {text} --local-dir FOLDER`), and pass that "
        "folder"
    )


KNOWN_OWNERS = (
    "llava-hf/",
    "deepseek-ai/",
    "deepseek-community/",
    "HyperGAI/",
    "YanweiLi/",
    "OpenGVLab/",
    "Qwen/",
    "google/",
    "HuggingFaceTB/",
    "mistral-community/",
    "mistralai/",
    "zai-org/",
    "CohereLabs/",
    "HuggingFaceM4/",
    "allenai/",
    "meta-llama/",
    "facebook/",
)
"""Owners on the hub of the models that the README names.

Nobody else can publish under their names, and no code of the hub is run: a file that names a model
of these owners can cause a long download at worst. Single models are not listed, since a new size
of a family would be refused.
"""


def check_foreign_source(name: str, source: str | Path, *, fix: str = "say so with --trust") -> str:
    """Return a model's folder or hub id that comes from a file.

    A folder or file of this machine will do, a hub id of the owners that the README names, and one
    that is in the hub's cache already, because somebody asked for it here before. Raises ValueError
    for other hub ids.
    """
    if Path(name).exists() or name.startswith((*KNOWN_OWNERS, "/", ".", "~")):
        return name
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return name
    except HFValidationError:
        return name  # no hub id: the loader says what is missing
    raise ValueError(
        f"{source} names {name!r} of the hub, which was never used here: look at it, and if you "
        f"trust it, {fix}"
    )


# Keys of a configuration that ask to run Python from the model's folder or the hub.
_CODE = ("auto_map", "trust_remote_code", "custom_pipelines")


def check_parts_of_config(config: Mapping[str, Any], source: str | Path) -> None:
    """Check the configurations of the parts (language model, vision tower) in a config.json.

    Raises:
        ValueError: a part names code of its own, a model that this transformers does not have, or
            weights that would be downloaded.
    """
    from transformers import CONFIG_MAPPING

    fix = "pass the folder of a model in transformers' own layout, or upgrade transformers"
    for name, part in config.items():
        if name.endswith("_config") and part is not None and not isinstance(part, Mapping):
            raise ValueError(f"{source}: {name} is {str(part)[:80]!r}, no configuration: {fix}")
        if not isinstance(part, Mapping):
            continue

        if wants := [key for key in _CODE if part.get(key)]:
            raise ValueError(
                f"{source}: {name} wants to run Python of its own ({wants[0]}), which flmm never "
                f"does: {fix}"
            )
        if part.get("use_pretrained_backbone"):
            raise ValueError(f"{source}: {name} names weights to download: {fix}")
        kind = part.get("model_type")
        if kind and not (isinstance(kind, str) and kind in CONFIG_MAPPING):
            raise ValueError(
                f"{source}: {name} is a model of type {str(kind)[:80]!r}, which this transformers "
                f"does not have: {fix}"
            )
        check_parts_of_config(part, source)


def read_or_explain(name: str | Path, part: str, read: Callable[..., Any], **options: Any) -> Any:
    """Call `read(name, **options)` of transformers, its errors as one sentence that names the part
    ("the tokenizer").

    Raises:
        FileNotFoundError: the part is not there. ValueError: it cannot be read.
    """
    if getattr(read, "__name__", "") == "from_pretrained":
        # Never a question, never code.
        options["trust_remote_code"] = False
    try:
        with without_bars() if Path(name).is_dir() else nullcontext():
            return read(name, **options)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"cannot read {part} of {name} (it wants to run Python of its own, which flmm "
                "never does): pass the folder of a model in transformers' own layout"
            ) from error
        reason = " ".join(str(error).split(". If you were trying")[0].splitlines()[:1]).rstrip(
            ".: "
        )
        kind = FileNotFoundError if isinstance(error, OSError) else ValueError
        raise kind(
            f"cannot read {part} of {name} ({reason}): pass a hub id, or the model's whole folder: "
            "config.json, all "
            "weights, and for an LMM its tokenizer and preprocessor_config.json"
        ) from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Let transformers read and write files of this machine without a live bar for each model.

    A download keeps its bar.
    """
    from transformers.utils import logging

    were_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_shown:
            logging.enable_progress_bar()


def check_device(device: str) -> torch.device:
    """Raise ValueError for a device that torch does not know or this machine does not have."""
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device={device!r} is not known: use cpu, cuda, cuda:1, ... or mps"
        ) from None
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r}, but torch sees {torch.cuda.device_count()} GPUs: use another, or "
            "cpu"
        )
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={device!r} is not on this machine: use cpu")
    return wanted


@lru_cache(maxsize=8)
def _hub_fault(name: str) -> str | None:
    """Return why the hub cannot be asked about a model; None if it answers in any way."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # The first base is the error of the HTTP client in use.
    bases = HfHubHTTPError.__bases__
    faults = [base for base in bases if issubclass(base, BaseException)]
    network: tuple[type[BaseException], ...] = (OSError, *faults)
    try:
        HfApi().model_info(name, timeout=ASK_S)
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set"
    except HfHubHTTPError as error:  # an answer: loading says what it means
        return (
            None
            if error.response is not None and error.response.status_code < 500
            else "it has a fault"
        )
    except network as error:
        return str(error) or type(error).__name__
    return None
