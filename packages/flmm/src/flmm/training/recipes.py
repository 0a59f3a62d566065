"""The ten published trainings of F-LMM (arXiv 2406.05821), all from one function.

`flmm train list` prints them, `flmm train show NAME` one in full. Paths of the data are never part
of a recipe.
"""

from collections.abc import Callable

from clim_train import RunConfig
from clim_train.recipes import Recipe, RunFacts, recipe_named

from flmm.training.config import GroundedModelConfig, GroundingConfig, GroundingDataConfig

RECIPES: dict[str, Recipe[GroundingConfig]] = {}

# What both LLaVA-NeXT trainings asked before a narrative; before expressions they asked what the
# others asked.
NEXT_REQUEST = "What is shown in this image?"


def recipe(function: Callable[[], GroundingConfig]) -> Recipe[GroundingConfig]:
    """Decorator that enters a function into `RECIPES`."""
    RECIPES[function.__name__] = entry = Recipe(
        function, RunFacts(8, None, "PNG, RefCOCO, RefCOCO+, RefCOCOg")
    )
    return entry


def find_recipe(name: str) -> Recipe[GroundingConfig]:
    """Return the recipe called `name`. Raises ValueError with all names, and the closest first."""
    return recipe_named(name, RECIPES)


def recipe_table() -> str:
    """Every recipe with its LMM, SAM, step and length, as a Markdown table."""
    rows = ["| recipe | LMM | SAM | GPUs x batch | epochs |", "|---|---|---|---|---|"]
    for name, entry in RECIPES.items():
        c = entry()
        batch = f"{entry.facts.gpus} x {c.data.batch_size}"
        rows.append(f"| {name} | {c.model.lmm} | {c.model.sam} | {batch} | {c.schedule.epochs} |")
    return "\n".join(rows)


def _flmm(name: str, lmm: str, *, narrative_request: str | None = None) -> GroundingConfig:
    return GroundingConfig(
        model=GroundedModelConfig(lmm=lmm),
        data=GroundingDataConfig(batch_size=1, narrative_request=narrative_request),
        run=RunConfig(folder=f"runs/{name}", save_every=500, keep=1),
    )


@recipe
def flmm_llava_1_5_vicuna_7b() -> GroundingConfig:
    """Heads for LLaVA-1.5 7B (Vicuna), SAM ViT-L.

    Paper: F-LMM, arXiv 2406.05821. 8 epochs, one image per GPU and step, AdamW at 1e-4.

    Command: deepspeed --num_gpus 8 --module flmm train flmm_llava_1_5_vicuna_7b --data.narratives
        SHARDS/png --data.expressions SHARDS/refcoco SHARDS/refcoco+ SHARDS/refcocog
    Hardware: 8 GPUs; the frozen LMM in bfloat16 (about 14 GB for 7B) is on each of them, and 13 M
        trained parameters.
    Data: `clim-data pack png` of the training narratives, `clim-data pack refcoco` of the train
        splits (UNC, UNC, UMD).
    Expected: 75.2, 63.7 and 67.1 on RefCOCO, RefCOCO+ and RefCOCOg (cIoU; which split the authors'
        list does not say), 64.8 average recall on PNG (63.4 things, 68.2 stuff), all from the
        numbers in the authors' scripts, under the original protocols of `flmm eval`. Not repeated
        by us.
    Differs from the original: every phrase of a global batch has the same weight, where each GPU's
        mean had; heads, SAM's decoder and normalisation are float32, where DeepSpeed made them
        bfloat16 with float32 copies (--engine.precision amp_bf16 is between the two); narratives
        without phrases are skipped and counted, where another sample was drawn in their place.
    """
    return _flmm("flmm_llava_1_5_vicuna_7b", "llava-hf/llava-1.5-7b-hf")


@recipe
def flmm_llava_next_vicuna_7b() -> GroundingConfig:
    """Heads for LLaVA-NeXT 7B (Vicuna), SAM ViT-L.

    Paper: F-LMM, arXiv 2406.05821. As `flmm_llava_1_5_vicuna_7b`; an image has up to 2928 tokens, a
    phrase 2048 maps.

    Command: deepspeed --num_gpus 8 --module flmm train flmm_llava_next_vicuna_7b --data.narratives
        SHARDS/png --data.expressions SHARDS/refcoco SHARDS/refcoco+ SHARDS/refcocog
    Hardware: as `flmm_llava_1_5_vicuna_7b`. The original's attention matrices took some 36 GB more;
        here they are not made.
    Data: as `flmm_llava_1_5_vicuna_7b`.
    Expected: 75.8, 65.8 and 70.1 on RefCOCO, RefCOCO+ and RefCOCOg, 66.3 average recall on PNG
        (65.1 things, 69.0 stuff), from the numbers in the authors' scripts. Not repeated by us.
    Differs from the original: as `flmm_llava_1_5_vicuna_7b`. The request before a narrative is
        another one than before expressions and in evaluation, as in the original
        (--data.narrative-request None takes the same).
    """
    return _flmm(
        "flmm_llava_next_vicuna_7b",
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        narrative_request=NEXT_REQUEST,
    )


@recipe
def flmm_llava_next_mistral_7b() -> GroundingConfig:
    """Heads for LLaVA-NeXT 7B (Mistral), SAM ViT-L.

    Paper: F-LMM, arXiv 2406.05821. As `flmm_llava_next_vicuna_7b`.

    Command: deepspeed --num_gpus 8 --module flmm train flmm_llava_next_mistral_7b --data.narratives
        SHARDS/png --data.expressions SHARDS/refcoco SHARDS/refcoco+ SHARDS/refcocog
    Hardware: as `flmm_llava_next_vicuna_7b`.
    Data: as `flmm_llava_1_5_vicuna_7b`.
    Expected: 75.7, 66.5 and 70.1 on RefCOCO, RefCOCO+ and RefCOCOg, 66.5 average recall on PNG
        (65.4 things, 69.1 stuff), from the numbers in the authors' scripts. Not repeated by us.
    Differs from the original: as `flmm_llava_next_vicuna_7b`.
    """
    return _flmm(
        "flmm_llava_next_mistral_7b",
        "llava-hf/llava-v1.6-mistral-7b-hf",
        narrative_request=NEXT_REQUEST,
    )


@recipe
def flmm_deepseek_vl_1_3b() -> GroundingConfig:
    """Heads for DeepSeek-VL 1.3B chat, SAM ViT-L.

    Paper: F-LMM, arXiv 2406.05821. As `flmm_llava_1_5_vicuna_7b`.

    Command: deepspeed --num_gpus 8 --module flmm train flmm_deepseek_vl_1_3b --data.narratives
        SHARDS/png --data.expressions SHARDS/refcoco SHARDS/refcoco+ SHARDS/refcocog
    Hardware: 8 GPUs; the frozen LMM takes about 3 GB on each.
    Data: as `flmm_llava_1_5_vicuna_7b`.
    Expected: 75.0, 62.8 and 68.2 on RefCOCO, RefCOCO+ and RefCOCOg, 64.9 average recall on PNG
        (63.4 things, 68.3 stuff), from the numbers in the authors' scripts. Not repeated by us.
    Differs from the original: as `flmm_llava_1_5_vicuna_7b`; the LMM is the conversion to
        transformers' own class.
    """
    return _flmm("flmm_deepseek_vl_1_3b", "deepseek-community/deepseek-vl-1.3b-chat")


@recipe
def flmm_deepseek_vl_7b() -> GroundingConfig:
    """Heads for DeepSeek-VL 7B chat, SAM ViT-L.

    Paper: F-LMM, arXiv 2406.05821. As `flmm_llava_1_5_vicuna_7b`.

    Command: deepspeed --num_gpus 8 --module flmm train flmm_deepseek_vl_7b --data.narratives
        SHARDS/png --data.expressions SHARDS/refcoco SHARDS/refcoco+ SHARDS/refcocog
    Hardware: as `flmm_llava_1_5_vicuna_7b`.
    Data: as `flmm_llava_1_5_vicuna_7b`.
    Expected: 76.1, 66.4 and 70.1 on RefCOCO, RefCOCO+ and RefCOCOg, 65.7 average recall on PNG
        (64.5 things, 68.5 stuff), from the numbers in the authors' scripts. Not repeated by us.
    Differs from the original: as `flmm_deepseek_vl_1_3b`.
    """
    return _flmm("flmm_deepseek_vl_7b", "deepseek-community/deepseek-vl-7b-chat")


@recipe
def flmm_mgm_gemma_2b() -> GroundingConfig:
    """Heads for Mini-Gemini MGM-2B (Gemma), SAM ViT-L.

    Paper: F-LMM, arXiv 2406.05821. As `flmm_llava_1_5_vicuna_7b`; a phrase has 144 maps.

    Command: deepspeed --num_gpus 8 --module flmm train flmm_mgm_gemma_2b --data.narratives
        SHARDS/png --data.expressions SHARDS/refcoco SHARDS/refcoco+ SHARDS/refcocog
    Hardware: 8 GPUs; the frozen LMM takes about 6 GB on each.
    Data: as `flmm_llava_1_5_vicuna_7b`.
    Expected: 75.0, 63.7 and 67.3 on RefCOCO, RefCOCO+ and RefCOCOg, 65.6 average recall on PNG
        (64.4 things, 68.4 stuff), from the numbers in the authors' scripts. Not repeated by us.
    Differs from the original: as `flmm_llava_1_5_vicuna_7b`; towers and language model are those of
        transformers and timm.
    """
    return _flmm("flmm_mgm_gemma_2b", "YanweiLi/MGM-2B")


@recipe
def flmm_mgm_vicuna_7b() -> GroundingConfig:
    """Heads for Mini-Gemini MGM-7B (Vicuna), SAM ViT-L.

    Paper: F-LMM, arXiv 2406.05821. As `flmm_llava_1_5_vicuna_7b`.

    Command: deepspeed --num_gpus 8 --module flmm train flmm_mgm_vicuna_7b --data.narratives
        SHARDS/png --data.expressions SHARDS/refcoco SHARDS/refcoco+ SHARDS/refcocog
    Hardware: as `flmm_llava_1_5_vicuna_7b`.
    Data: as `flmm_llava_1_5_vicuna_7b`.
    Expected: 75.7, 64.8 and 68.3 on RefCOCO, RefCOCO+ and RefCOCOg, 66.3 average recall on PNG
        (65.3 things, 68.6 stuff), from the numbers in the authors' scripts. Not repeated by us.
    Differs from the original: as `flmm_mgm_gemma_2b`.
    """
    return _flmm("flmm_mgm_vicuna_7b", "YanweiLi/MGM-7B")


@recipe
def flmm_mgm_vicuna_7b_hd() -> GroundingConfig:
    """Heads for Mini-Gemini MGM-7B-HD (Vicuna), SAM ViT-L.

    Paper: F-LMM, arXiv 2406.05821. As `flmm_llava_1_5_vicuna_7b`; an image has 2880 tokens, a
    phrase 2048 maps.

    Command: deepspeed --num_gpus 8 --module flmm train flmm_mgm_vicuna_7b_hd --data.narratives
        SHARDS/png --data.expressions SHARDS/refcoco SHARDS/refcoco+ SHARDS/refcocog
    Hardware: as `flmm_llava_next_vicuna_7b`.
    Data: as `flmm_llava_1_5_vicuna_7b`.
    Expected: 76.1, 65.2 and 68.5 on RefCOCO, RefCOCO+ and RefCOCOg, 66.7 average recall on PNG
        (65.6 things, 69.1 stuff), from the numbers in the authors' scripts. Not repeated by us.
    Differs from the original: as `flmm_mgm_gemma_2b`.
    """
    return _flmm("flmm_mgm_vicuna_7b_hd", "YanweiLi/MGM-7B-HD")


@recipe
def flmm_hpt_air() -> GroundingConfig:
    """Heads for HPT-Air (Yi-6B with a CLIP tower), SAM ViT-L.

    Paper: F-LMM, arXiv 2406.05821. As `flmm_llava_1_5_vicuna_7b`; an image has 784 tokens.

    Command: deepspeed --num_gpus 8 --module flmm train flmm_hpt_air --data.narratives SHARDS/png
        --data.expressions SHARDS/refcoco SHARDS/refcoco+ SHARDS/refcocog
    Hardware: as `flmm_llava_1_5_vicuna_7b`.
    Data: as `flmm_llava_1_5_vicuna_7b`.
    Expected: 74.3, 64.0 and 67.5 on RefCOCO, RefCOCO+ and RefCOCOg, 65.5 average recall on PNG
        (64.0 things, 68.8 stuff), from the numbers in the authors' scripts. Not repeated by us.
    Differs from the original: as `flmm_llava_1_5_vicuna_7b`; the language model is transformers'
        own class, and no Python of the model's folder runs.
    """
    return _flmm("flmm_hpt_air", "HyperGAI/HPT")


@recipe
def flmm_hpt_air_1_5() -> GroundingConfig:
    """Heads for HPT-Air 1.5 (Llama 3 8B with a SigLIP tower), SAM ViT-L.

    Paper: F-LMM, arXiv 2406.05821. As `flmm_llava_1_5_vicuna_7b`; an image has 1024 tokens.

    Command: deepspeed --num_gpus 8 --module flmm train flmm_hpt_air_1_5 --data.narratives
        SHARDS/png --data.expressions SHARDS/refcoco SHARDS/refcoco+ SHARDS/refcocog
    Hardware: as `flmm_llava_1_5_vicuna_7b`; the LMM takes about 17 GB.
    Data: as `flmm_llava_1_5_vicuna_7b`.
    Expected: 76.3, 64.5 and 68.5 on RefCOCO, RefCOCO+ and RefCOCOg, 65.4 average recall on PNG
        (64.1 things, 68.5 stuff), from the numbers in the authors' scripts. Not repeated by us.
    Differs from the original: as `flmm_hpt_air`.
    """
    return _flmm("flmm_hpt_air_1_5", "HyperGAI/HPT1_5-Air-Llama-3-8B-Instruct-multimodal")
