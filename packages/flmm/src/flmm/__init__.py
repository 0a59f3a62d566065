"""Masks for the phrases a frozen multimodal LLM says. See README.md; names here are the API."""

from importlib import import_module

from flmm.version import __version__

# Loaded on first use: torch and transformers take seconds to import.
_EXPORTS: dict[str, str] = {
    "AnyResolutionTiles": "flmm.adapters.preparers",
    "Capture": "flmm.attention.capture",
    "FeatureCache": "flmm.training.feature_cache",
    "FrozenFeatures": "flmm.samples",
    "FrozenLMM": "flmm.adapters.frozen",
    "Generated": "flmm.adapters.features",
    "GroundedLMM": "flmm.grounded",
    "Grounding": "flmm.grounded",
    "GroundingBatch": "flmm.samples",
    "GroundingConfig": "flmm.training.config",
    "GroundingItem": "flmm.samples",
    "GroundingLoader": "flmm.training.data",
    "GroundingTask": "flmm.training.task",
    "HybridSquare": "flmm.adapters.preparers",
    "ImageEmbedding": "flmm.refiners.embedding",
    "ImageFrame": "flmm.adapters.frames",
    "PadToSquare": "flmm.adapters.preparers",
    "PhraseFeatures": "flmm.adapters.features",
    "PhraseRows": "flmm.attention.capture",
    "PreparedImage": "flmm.adapters.frames",
    "PromptStyle": "flmm.text.prompts",
    "SamRefiner": "flmm.refiners.sam.refiner",
    "Sample": "flmm.adapters.features",
    "SampleMaker": "flmm.samples",
    "TokenRows": "flmm.attention.capture",
    "TokenizedText": "flmm.text.tokens",
    "TrainedHeads": "flmm.training.task",
    "ask": "flmm.dialogue.answers",
    "build_lmm": "flmm.adapters.registry",
    "ground": "flmm.grounders.images",
    "ground_answer": "flmm.dialogue.answers",
    "ground_phrases": "flmm.grounders.heads",
    "grounding_figure": "flmm.pictures.masks",
    "load_grounded": "flmm.grounded",
    "load_lmm": "flmm.adapters.registry",
    "load_sam": "flmm.refiners.sam.weights",
    "phrase_token_spans": "flmm.text.tokens",
    "prompt_style": "flmm.text.prompts",
    "register_family": "flmm.adapters.registry",
    "save_grounding": "flmm.grounders.images",
    "supported_families": "flmm.adapters.registry",
    "tokenize_expressions": "flmm.text.tokens",
    "tokenize_sample": "flmm.text.tokens",
    "tokenize_segments": "flmm.text.tokens",
    "use_rows_attention": "flmm.attention.rows",
    "visual_answer": "flmm.dialogue.visual_cot",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
