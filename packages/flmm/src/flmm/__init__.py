"""Masks for the phrases a frozen multimodal LLM says. See README.md; names here are the API."""

from importlib import import_module

from flmm.version import __version__

# Loaded on first use: torch and transformers take seconds to import.
_EXPORTS: dict[str, str] = {
    "AnyResolutionTiles": "frames",
    "Capture": "capture",
    "FeatureCache": "feature_cache",
    "FrozenFeatures": "inputs",
    "FrozenLMM": "adapters.frozen",
    "Generated": "adapters.frozen",
    "GroundedLMM": "grounded",
    "Grounding": "grounded",
    "GroundingBatch": "inputs",
    "GroundingConfig": "grounding_config",
    "GroundingItem": "inputs",
    "GroundingLoader": "grounding_data",
    "GroundingTask": "grounding_task",
    "HybridSquare": "frames",
    "ImageEmbedding": "sam_refiner",
    "ImageFrame": "frames",
    "PadToSquare": "frames",
    "PhraseFeatures": "adapters.frozen",
    "PhraseRows": "capture",
    "PreparedImage": "frames",
    "PromptStyle": "prompts",
    "SamRefiner": "sam_refiner",
    "Sample": "adapters.frozen",
    "SampleMaker": "inputs",
    "TokenRows": "capture",
    "TokenizedText": "narratives",
    "TrainedHeads": "grounding_task",
    "ask": "chat",
    "build_lmm": "adapters",
    "ground": "image_phrases",
    "ground_answer": "chat",
    "ground_phrases": "chat",
    "grounding_figure": "pictures",
    "load_grounded": "grounded",
    "load_lmm": "adapters",
    "load_sam": "sam_weights",
    "phrase_token_spans": "narratives",
    "prompt_style": "prompts",
    "register_family": "adapters",
    "save_grounding": "image_phrases",
    "supported_families": "adapters",
    "tokenize_expressions": "narratives",
    "tokenize_sample": "narratives",
    "tokenize_segments": "narratives",
    "use_rows_attention": "attention",
    "visual_answer": "visual_cot",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
