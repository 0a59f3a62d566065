"""What the tests of training and evaluation of flmm run on: a tiny grounded LLaVA, and pictures
with phrases.

Tests import them as `from tiny_grounding import tiny_grounded, Pictures` (pytest puts this folder
on the path).
"""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from clim_data import GroundingSample, Phrase, SkipReport
from clim_models import UNetHead
from clim_train import EngineConfig, RunConfig, ScheduleConfig, Trainer
from clim_train.run import AgreedError
from flmm import (
    GroundedLMM,
    GroundingBatch,
    GroundingConfig,
    GroundingLoader,
    GroundingTask,
    SampleMaker,
    SamRefiner,
)
from flmm.samples import training_item
from flmm.training import GroundingDataConfig
from flmm.training.config import grounding_optim
from tiny_lmms import FAMILIES, IMAGE_ID, picture, tiny_lmm
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

WORDS = [
    "<unk>",
    "<s>",
    "</s>",
    "USER",
    "ASSISTANT",
    ":",
    ".",
    "a",
    "red",
    "blue",
    "big",
    "small",
    "car",
    "dog",
    "tree",
    "sky",
    "left",
    "right",
    "of",
    "the",
    "Please",
    "give",
]


# Phrases of the pictures of two processes; None cannot be read.
UNEVEN = (1, 4, None, 2, 3, None, None, 1)


def word_tokenizer(image_token: str = "<image>") -> PreTrainedTokenizerFast:
    """Whole words, all others <unk>."""
    vocabulary = {word: i for i, word in enumerate(WORDS)} | {image_token: IMAGE_ID}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )
    made.add_special_tokens({"additional_special_tokens": [image_token]})
    return made


def tiny_sam() -> SamModel:
    """SAM for 64-pixel squares with random weights."""
    vision = SamVisionConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        output_channels=16,
        window_size=2,
        global_attn_indexes=[0],
        mlp_dim=32,
        num_pos_feats=8,
    )
    prompts = SamPromptEncoderConfig(
        hidden_size=16, image_size=64, patch_size=16, mask_input_channels=4
    )
    decoder = SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
    )
    sam = SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    ).eval()
    with torch.no_grad():
        for (
            parameter
        ) in sam.parameters():  # far from the start, where masks are zero but for rounding
            parameter.add_(0.1 * torch.randn_like(parameter))
    return sam


def tiny_grounded(family: str = "llava", *, seed: int = 3) -> GroundedLMM:
    """The same weights each time."""
    lmm = tiny_lmm(family)
    lmm.tokenizer = word_tokenizer(lmm.family.style.image_token)
    torch.manual_seed(seed)
    return GroundedLMM(
        lmm, UNetHead(lmm.map_channels, base=2, upsample_input=16), SamRefiner(tiny_sam())
    )


def save_tiny_grounded(folder: Path) -> GroundedLMM:
    """Its files: folder/lmm, folder/sam and folder/heads, whose grounding.json names the others."""
    torch.manual_seed(5)
    sam = tiny_sam()
    lmm = tiny_lmm("llava")
    lmm.tokenizer = word_tokenizer()
    model = GroundedLMM(
        lmm, UNetHead(lmm.map_channels, base=2, upsample_input=16), SamRefiner(sam)
    ).eval()
    for part in (lmm.model, lmm.tokenizer, FAMILIES["llava"]()[1]):
        part.save_pretrained(folder / "lmm")
    sam.save_pretrained(folder / "sam")
    model.save_heads(folder / "heads" / "heads.safetensors")
    named = {"lmm": str(folder / "lmm"), "sam": str(folder / "sam")}
    (folder / "heads" / "grounding.json").write_text(json.dumps(named))
    return model


class Boxes:
    """A mask source: phrase k has a rectangle."""

    def __init__(self, count: int):
        self.count = count

    def masks(self, size: tuple[int, int]) -> np.ndarray:
        masks = np.zeros((self.count, *size), dtype=bool)
        for k, mask in enumerate(masks):
            mask[4 * k : 4 * k + 20, 2 * k : 2 * k + 14] = True
        return masks


def narrative(
    number: int, phrases: int, *, broken: bool = False, words: int = 2
) -> GroundingSample:
    """A picture of noise and a text with so many phrases."""
    file = io.BytesIO()
    picture(40 + number % 3, 56, seed=number).save(file, "png")
    segments = [("the sky", -1)]
    for k in range(phrases):
        segments += [
            (" ".join(WORDS[7 + (number + k + i) % 12] for i in range(words)), k),
            ("left of", -1),
        ]
    return GroundingSample(
        key=f"{number:04d}",
        image_id=number,
        kind="narrative",
        segments=tuple(segments),
        phrases=tuple(Phrase(text, k % 2 == 1, k % 3 != 2, (k,)) for text, k in segments if k >= 0),
        image=b"no image" if broken else file.getvalue(),
        mask_source=Boxes(phrases),
    )


class Pictures:
    """A `GroundingData`: one narrative for each number of phrases; None is one with a broken
    image."""

    def __init__(
        self, phrases: Sequence[int | None] = (1, 2, 3, 1, 2), *, first: int = 0, words: int = 2
    ):
        self.phrases, self.first, self.words, self.skipped = (
            list(phrases),
            first,
            words,
            SkipReport(),
        )

    def __len__(self) -> int:
        return len(self.phrases)

    def __getitem__(self, number: int) -> GroundingSample:
        return self.at(number, epoch=0)

    def at(self, number: int, *, epoch: int) -> GroundingSample:
        count = self.phrases[number]
        return narrative(self.first + number, count or 1, broken=count is None, words=self.words)

    def stamp(self) -> str:
        return f"{self.phrases}|{self.first}|{self.words}"


def batch_of(model: GroundedLMM, numbers: Sequence[int], phrases: Sequence[int]) -> GroundingBatch:
    """A batch made without a loader."""
    maker = SampleMaker(model.lmm)
    items = [
        training_item(maker, narrative(n, count), key=str(n), square=model.sam.square)
        for n, count in zip(numbers, phrases, strict=True)
    ]
    return GroundingBatch(tuple(items))


def tiny_config(folder, *, steps: int = 4, batch_size: int = 2, **engine) -> GroundingConfig:
    """A checkpoint every two steps, every step logged; stage 3 takes every weight away between its
    uses."""
    return GroundingConfig(
        data=GroundingDataConfig(batch_size=batch_size, workers=0),
        optim=replace(grounding_optim(lr=1e-3), eps=1e-3),
        schedule=ScheduleConfig(steps=steps, warmup_share=0.5, warmup_start=1e-5),
        engine=EngineConfig(
            **{"zero_stage": 1, "precision": "fp32", "device": "cpu", "whole_below": 0, **engine}
        ),
        run=RunConfig(folder=str(folder), log_every=1, save_every=2, bar=False, tensorboard=False),
    )


def tiny_trainer(
    config: GroundingConfig,
    data=None,
    *,
    family: str = "llava",
    cache=None,
    resume: bool = False,
    **ranks,
) -> Trainer:
    """A trainer of the tiny model on `data` (or five pictures)."""
    model = tiny_grounded(family)
    loader = GroundingLoader(
        {"pictures": data or Pictures()},
        model.lmm,
        square=model.sam.square,
        batch_size=config.data.batch_size,
        cache=cache,
        **ranks,
    )
    return Trainer(config, GroundingTask(model, cache=cache), loader, resume=resume)


class Interrupted(AgreedError):
    """Stands for a killed process; all ranks raise it at the same step."""


def fit_until(trainer: Trainer, step: int) -> None:
    """Trains until the checkpoint of `step` is written, then stops as if killed."""
    save = trainer.save

    def save_and_stop():
        save()
        if trainer.step == step:
            raise Interrupted

    trainer.save = save_and_stop
    try:
        trainer.fit()
    except Interrupted:
        trainer.close()


__all__ = [
    "FAMILIES",
    "UNEVEN",
    "WORDS",
    "Boxes",
    "Interrupted",
    "Pictures",
    "batch_of",
    "fit_until",
    "narrative",
    "save_tiny_grounded",
    "tiny_config",
    "tiny_grounded",
    "tiny_sam",
    "tiny_trainer",
    "word_tokenizer",
]
