"""The demo LMM: an ordinary LLaVA of transformers, of one million parameters, with a tokenizer of
words."""

from pathlib import Path
from typing import Any

from flmm.demo.scenes import IMAGE_PX, demo_words
from flmm.hub import without_bars
from flmm.text.prompts import DESCRIBE, STYLES

PATCH_PX = 8
WIDTH = 128
VISION_LAYERS = 3
LANGUAGE_LAYERS = 3
HEADS = 4
CONTEXT = 256
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")


def word_tokenizer() -> Any:
    """Make a transformers tokenizer of whole words and punctuation; other words become <unk>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    asked = STYLES["vicuna"].template.replace("{input}", f" {DESCRIBE} ")
    prompt_words = [word for word, _ in pieces.pre_tokenize_str(asked)]
    vocabulary = list(dict.fromkeys([*_SPECIAL, *prompt_words, *demo_words()]))
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pieces
    begin = ("<s>", vocabulary.index("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[begin]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=["<image>"],
        model_max_length=CONTEXT,
    )


def image_processor() -> Any:
    """Of a CLIP tower of this size."""
    from transformers import CLIPImageProcessorPil

    side = {"height": IMAGE_PX, "width": IMAGE_PX}
    return CLIPImageProcessorPil(size={"shortest_edge": IMAGE_PX}, crop_size=side)


def build_demo_llava(tokenizer: Any) -> Any:
    """Build a LlavaForConditionalGeneration with random weights."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": VISION_LAYERS,
        "num_attention_heads": HEADS,
        "image_size": IMAGE_PX,
        "patch_size": PATCH_PX,
    }
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LANGUAGE_LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=(IMAGE_PX // PATCH_PX) ** 2,
    )
    return LlavaForConditionalGeneration(config)


def save_folder(model: Any, tokenizer: Any, folder: str | Path) -> Path:
    """Write a Hugging Face folder: weights, configuration, tokenizer, image processor and
    processor."""
    from transformers import LlavaProcessor

    folder = Path(folder)
    with without_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    LlavaProcessor(
        image_processor=image_processor(),
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder
