"""Mini-Gemini (MGM-2B, -7B, -7B-HD) from its authors' files.

One folder has the language model, the projectors and, in some releases, the towers; config.json
names the towers' own folders. Models of transformers and timm run all of it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flmm.adapters.authors.joined import JoinedConfig, JoinedLMM, add_image_token
from flmm.adapters.authors.mgm_vision import MiniGeminiSizes, MiniGeminiVision, WindowAttention
from flmm.adapters.authors.weights import (
    WEIGHT_FILES,
    authors_folder,
    build_pretrained,
    check_tensors,
    read_weights,
    under,
)
from flmm.hub import hub_options, read_or_explain

# The towers' folders in the authors' model zoo, and the same models on the hub.
TOWERS = {
    "clip-vit-large-patch14-336": "openai/clip-vit-large-patch14-336",
    "openclip-convnext-large-d-320-laion2B-s29B-b131K-ft-soup": (
        "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup"
    ),
}
_CLIP, _FINE = "model.vision_tower.vision_tower.vision_model.", "model.vision_tower_aux.vision_"
_MINING = {
    "query": "vlm_uni_query_projector",
    "key": "vlm_uni_aux_projector",
    "value": "vlm_uni_val_projector",
}
_PROJECTOR = "model.mm_projector."
_OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_FIX = "download all files of the model again"


def read_authors_model(
    name: str | Path, raw: dict[str, Any], *, dtype: torch.dtype, local_files_only: bool = False
) -> tuple[Any, Any, Any]:
    """Read (model, image processor, tokenizer) from the authors' folder or hub id.

    Args:
        raw: its config.json.
        local_files_only: take a model of the hub from the cache.

    Raises:
        FileNotFoundError: a file or the folder of a tower is missing.
        ValueError: a part has other contents, or its weights are not complete.
    """
    from transformers import AutoImageProcessor, AutoTokenizer

    folder = authors_folder(name, local_files_only=local_files_only)
    tensors = read_weights(folder)
    vision = under_any(tensors, (_CLIP, _FINE, _PROJECTOR, "model.vlm_uni_"))
    words = {k: v for k, v in tensors.items() if k not in vision}
    causal = language_model(raw, words, dtype=dtype, source=folder)

    tower_folder = tower_of(folder, raw, "mm_vision_tower")
    tower = clip_tower(tower_folder, under(vision, _CLIP), dtype=dtype)
    sizes = MiniGeminiSizes(
        image_size=tower.config.image_size,
        patch_size=tower.config.patch_size,
        aux_size=raw["image_size_aux"],
        tiles=raw.get("image_grid", 1),
        whole=raw.get("image_global", False),
        layer=raw.get("mm_vision_select_layer", -2),
    )
    fine = under(vision, _FINE)
    if not any(key.startswith("stages.") for key in fine):
        fine = open_clip_trunk(tower_of(folder, raw, "mm_vision_tower_aux"))
    module = MiniGeminiVision(
        tower=tower,
        fine=convnext(fine, source=folder),
        mining=mining(vision, source=folder),
        projector=projector(under(vision, _PROJECTOR), raw, source=folder),
        sizes=sizes,
        # Gemma scales the embeddings of words, and those of images with them.
        scale=causal.config.hidden_size**0.5 if causal.config.model_type == "gemma" else 1.0,
    ).to(dtype)

    local = {"local_files_only": True}
    # transformers does not know the model type in config.json, which it would look into.
    tokenizer = read_or_explain(
        folder, "the tokenizer", AutoTokenizer.from_pretrained, config=causal.config, **local
    )
    processor = read_or_explain(
        tower_folder, "the image processor", AutoImageProcessor.from_pretrained, **local
    )
    config = JoinedConfig(
        raw["model_type"],
        causal.config,
        sizes,
        add_image_token(tokenizer),
        name_or_path=str(name),
    )
    return JoinedLMM(causal, module, config), processor, tokenizer


def under_any(tensors: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors whose name begins with one of the prefixes, under their whole names."""
    return {key: value for key, value in tensors.items() if key.startswith(prefixes)}


def language_model(
    raw: Mapping[str, Any], tensors: Mapping[str, Tensor], *, dtype: torch.dtype, source: Path
) -> Any:
    """Build the Llama or Gemma that a configuration of Mini-Gemini describes."""
    from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM

    own = {k: v for k, v in raw.items() if k not in ("model_type", "architectures", "torch_dtype")}
    if raw["model_type"] == "mgm_gemma":
        # Gemma was trained with the tanh form, also where `hidden_act` says "gelu".
        activation = own.pop("hidden_activation", None) or "gelu_pytorch_tanh"
        config: Any = GemmaConfig(**{**own, "hidden_act": "gelu_pytorch_tanh"})
        config.hidden_act = activation
        kind: Any = GemmaForCausalLM
    else:
        config, kind = LlamaConfig(**own), LlamaForCausalLM
    tensors = dict(tensors)
    if config.tie_word_embeddings and "model.embed_tokens.weight" in tensors:
        tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
    what = f"a Mini-Gemini of type {raw['model_type']}"
    return build_pretrained(kind, config, tensors, dtype=dtype, source=source, what=what, fix=_FIX)


def tower_of(folder: Path, raw: Mapping[str, Any], key: str) -> Path:
    """Find the folder of a tower that config.json names by a path in the authors' model zoo.

    Places are tried in this order: the path itself, the same path and its last part in the model's
    folder and in every folder above it, and the same model of the hub.

    Raises:
        FileNotFoundError: none of them is there.
    """
    named = Path(raw[key])
    bases = [folder.resolve(), *folder.resolve().parents]
    for place in (named, *(base / named for base in bases), *(b / named.name for b in bases)):
        if (place / "config.json").is_file() or (place / "open_clip_config.json").is_file():
            return place
    if (hub_id := TOWERS.get(named.name)) is not None:
        where = hub_options(hub_id, what="a vision tower")
        patterns = ["*.json", *WEIGHT_FILES, *_OPEN_CLIP_FILES]
        return authors_folder(hub_id, patterns=patterns, **where)
    raise FileNotFoundError(
        f"there is no folder {named}, which {key} in {folder}/config.json names: download that "
        f"vision tower, and put its folder {named.name} into {folder} or next to it"
    )


def clip_tower(folder: Path, own: Mapping[str, Tensor], *, dtype: torch.dtype) -> Any:
    """Build the CLIP tower of a folder; tensors of the LMM's own come before the folder's."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    about = json.loads((folder / "config.json").read_text())
    about = about.get("vision_config", about)  # of a whole CLIP, or of its tower
    about = {key: value for key, value in about.items() if key != "model_type"}
    config = CLIPVisionConfig(**about)
    with torch.device("meta"):
        names = CLIPVisionModel(config).state_dict().keys()
    tensors = dict(own)
    if names - tensors.keys():
        tensors = under(read_weights(folder), "vision_model.") | tensors
    message = {"source": folder, "what": "Mini-Gemini's CLIP tower", "fix": _FIX}
    return build_pretrained(CLIPVisionModel, config, tensors, dtype=dtype, **message)


def open_clip_trunk(folder: Path) -> dict[str, Tensor]:
    """Read stem and stages of a ConvNeXt from a folder of open_clip."""
    trunk = under(read_weights(folder, _OPEN_CLIP_FILES), "visual.trunk.")
    return under_any(trunk, ("stem.", "stages."))


def convnext(tensors: Mapping[str, Tensor], *, source: Path) -> nn.Module:
    """Build timm's ConvNeXt with the depths and widths that its tensors have."""
    from timm.models.convnext import ConvNeXt

    if "stem.0.weight" not in tensors:
        raise ValueError(f"{source} has no ConvNeXt with a stem: {_FIX}")
    widths = [len(tensors["stem.0.weight"])]
    while (key := f"stages.{len(widths)}.downsample.1.weight") in tensors:
        widths.append(len(tensors[key]))
    depths = []
    for stage in range(len(widths)):
        blocks = {k.split(".")[3] for k in tensors if k.startswith(f"stages.{stage}.blocks.")}
        depths.append(len(blocks))

    patch = tensors["stem.0.weight"].shape[-1]
    model = ConvNeXt(depths=tuple(depths), dims=tuple(widths), patch_size=patch, num_classes=0)
    parts = nn.Module()
    parts.stem, parts.stages = model.stem, model.stages
    check_tensors(parts, tensors, source=source, what="Mini-Gemini's ConvNeXt", fix=_FIX)
    parts.load_state_dict(tensors)
    return parts.eval()


def mining(vision: Mapping[str, Tensor], *, source: Path) -> WindowAttention:
    """Build the attention of CLIP's tokens to the fine map."""
    tensors = {}
    for part, name in _MINING.items():
        for key, value in under(vision, f"model.{name}.").items():
            tensors[f"{part}.{key}"] = value
    keys = tensors.get("key.1.weight")  # (C, C')
    if keys is None:
        raise ValueError(f"{source} has no model.{_MINING['key']}.1.weight: {_FIX}")
    module = WindowAttention(*keys.shape)
    check_tensors(module, tensors, source=source, what="Mini-Gemini's vlm_uni", fix=_FIX)
    module.load_state_dict(tensors)
    return module


def projector(tensors: Mapping[str, Tensor], raw: Mapping[str, Any], *, source: Path) -> nn.Module:
    """Build the projector: as many linear layers as its type says, with GELU between them."""
    kind = raw.get("mm_projector_type", "linear")
    depth = kind.removeprefix("mlp").removesuffix("x_gelu")
    if kind != "linear" and not depth.isdigit():
        raise ValueError(f"mm_projector_type={kind!r} of {source} is not linear or mlpNx_gelu")
    wide = raw["hidden_size"]
    layers: list[nn.Module] = [nn.Linear(raw["mm_hidden_size"], wide)]
    for _ in range(1, 1 if kind == "linear" else int(depth)):
        layers += [nn.GELU(), nn.Linear(wide, wide)]
    module = nn.Sequential(*layers)
    check_tensors(module, tensors, source=source, what=f"a projector {kind}", fix=_FIX)
    module.load_state_dict(tensors)
    return module
