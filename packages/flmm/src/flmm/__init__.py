"""Masks for the phrases that a frozen multimodal LLM says.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

from flmm.version import __version__ as __version__

if TYPE_CHECKING:
    from flmm.adapters.features import (
        Answer as Answer,
        GeneratedAnswer as GeneratedAnswer,
        PhraseFeatures as PhraseFeatures,
        Sample as Sample,
    )
    from flmm.adapters.frames import ImageFrame as ImageFrame, PreparedImage as PreparedImage
    from flmm.adapters.frozen import FrozenLMM as FrozenLMM
    from flmm.adapters.layout import ImageLayout as ImageLayout
    from flmm.adapters.preparers import (
        AnyResolutionTiles as AnyResolutionTiles,
        HybridSquare as HybridSquare,
        PadToSquare as PadToSquare,
    )
    from flmm.adapters.registry import (
        build_lmm as build_lmm,
        load_lmm as load_lmm,
        register_family as register_family,
        supported_families as supported_families,
    )
    from flmm.attention.capture import (
        Capture as Capture,
        PhraseRows as PhraseRows,
        TokenRows as TokenRows,
    )
    from flmm.attention.rows import use_rows_attention as use_rows_attention
    from flmm.dialogue.answers import (
        GroundedText as GroundedText,
        NoPhrasesError as NoPhrasesError,
        ask as ask,
        ground_answer as ground_answer,
    )
    from flmm.dialogue.visual_cot import (
        LookOptions as LookOptions,
        VisualAnswer as VisualAnswer,
        visual_answer as visual_answer,
    )
    from flmm.grounded import GroundedLMM as GroundedLMM, load_grounded as load_grounded
    from flmm.grounders.heads import ground_phrases as ground_phrases
    from flmm.grounders.images import ground as ground, save_grounding as save_grounding
    from flmm.grounders.phrase_maps import (
        PhraseMaps as PhraseMaps,
        phrase_maps as phrase_maps,
    )
    from flmm.grounders.pipeline import (
        GroundingOptions as GroundingOptions,
        GroundingPipeline as GroundingPipeline,
        pipeline as pipeline,
    )
    from flmm.heads.sharing import (
        fetch_heads as fetch_heads,
        push_heads_to_hub as push_heads_to_hub,
    )
    from flmm.heads.trainable import Grounding as Grounding, TrainableHeads as TrainableHeads
    from flmm.pictures.attention import attention_figure as attention_figure
    from flmm.pictures.masks import grounding_figure as grounding_figure
    from flmm.refiners.embedding import ImageEmbedding as ImageEmbedding
    from flmm.refiners.sam.refiner import SamRefiner as SamRefiner
    from flmm.refiners.sam.weights import load_sam as load_sam
    from flmm.samples import (
        FrozenFeatures as FrozenFeatures,
        GroundingBatch as GroundingBatch,
        GroundingItem as GroundingItem,
        SampleMaker as SampleMaker,
    )
    from flmm.text.prompts import PromptStyle as PromptStyle, prompt_style as prompt_style
    from flmm.text.tokens import (
        TokenizedText as TokenizedText,
        phrase_token_spans as phrase_token_spans,
        tokenize_expressions as tokenize_expressions,
        tokenize_sample as tokenize_sample,
        tokenize_segments as tokenize_segments,
    )
    from flmm.training.config import GroundingConfig as GroundingConfig
    from flmm.training.data import GroundingLoader as GroundingLoader
    from flmm.training.feature_cache import FeatureCache as FeatureCache
    from flmm.training.task import GroundingTask as GroundingTask
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "Answer": "flmm.adapters.features",
            "AnyResolutionTiles": "flmm.adapters.preparers",
            "Capture": "flmm.attention.capture",
            "FeatureCache": "flmm.training.feature_cache",
            "FrozenFeatures": "flmm.samples",
            "FrozenLMM": "flmm.adapters.frozen",
            "GeneratedAnswer": "flmm.adapters.features",
            "GroundedLMM": "flmm.grounded",
            "GroundedText": "flmm.dialogue.answers",
            "Grounding": "flmm.heads.trainable",
            "GroundingBatch": "flmm.samples",
            "GroundingConfig": "flmm.training.config",
            "GroundingItem": "flmm.samples",
            "GroundingLoader": "flmm.training.data",
            "GroundingOptions": "flmm.grounders.pipeline",
            "GroundingPipeline": "flmm.grounders.pipeline",
            "GroundingTask": "flmm.training.task",
            "HybridSquare": "flmm.adapters.preparers",
            "ImageEmbedding": "flmm.refiners.embedding",
            "ImageFrame": "flmm.adapters.frames",
            "ImageLayout": "flmm.adapters.layout",
            "LookOptions": "flmm.dialogue.visual_cot",
            "NoPhrasesError": "flmm.dialogue.answers",
            "PadToSquare": "flmm.adapters.preparers",
            "PhraseFeatures": "flmm.adapters.features",
            "PhraseMaps": "flmm.grounders.phrase_maps",
            "PhraseRows": "flmm.attention.capture",
            "PreparedImage": "flmm.adapters.frames",
            "PromptStyle": "flmm.text.prompts",
            "SamRefiner": "flmm.refiners.sam.refiner",
            "Sample": "flmm.adapters.features",
            "SampleMaker": "flmm.samples",
            "TokenRows": "flmm.attention.capture",
            "TokenizedText": "flmm.text.tokens",
            "TrainableHeads": "flmm.heads.trainable",
            "VisualAnswer": "flmm.dialogue.visual_cot",
            "ask": "flmm.dialogue.answers",
            "attention_figure": "flmm.pictures.attention",
            "build_lmm": "flmm.adapters.registry",
            "fetch_heads": "flmm.heads.sharing",
            "ground": "flmm.grounders.images",
            "ground_answer": "flmm.dialogue.answers",
            "ground_phrases": "flmm.grounders.heads",
            "grounding_figure": "flmm.pictures.masks",
            "load_grounded": "flmm.grounded",
            "load_lmm": "flmm.adapters.registry",
            "load_sam": "flmm.refiners.sam.weights",
            "phrase_maps": "flmm.grounders.phrase_maps",
            "phrase_token_spans": "flmm.text.tokens",
            "pipeline": "flmm.grounders.pipeline",
            "prompt_style": "flmm.text.prompts",
            "push_heads_to_hub": "flmm.heads.sharing",
            "register_family": "flmm.adapters.registry",
            "save_grounding": "flmm.grounders.images",
            "supported_families": "flmm.adapters.registry",
            "tokenize_expressions": "flmm.text.tokens",
            "tokenize_sample": "flmm.text.tokens",
            "tokenize_segments": "flmm.text.tokens",
            "use_rows_attention": "flmm.attention.rows",
            "visual_answer": "flmm.dialogue.visual_cot",
        },
        renamed={
            "Generated": "GeneratedAnswer",
            "NoPhrases": "NoPhrasesError",
            "TrainedHeads": "TrainableHeads",
        },
    )
