"""Image-level pretraining of clim-tiny on the embedded emoji set: ``python -m
clim_train.experiments.pretrain_tiny``.

Ordinary CLIP training (symmetric InfoNCE of single 64 px drawings against captions) with the frozen
MiniLM text tower, whose features are computed once. The held-out vendor and the test and validation
concepts of `EmojiSet.split()` are never seen. The file it writes is what `clim_models.tiny` ships.
"""

import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from clim_data.command_line import CommandParser, add_option
from clim_data.drawings import EmojiSet, EmojiSplit, load_emoji
from clim_models import TINY, TINY_WEIGHTS, build_clim_tiny
from clim_models.checkpoints import save_tensors
from clim_models.losses import contrastive_loss
from clim_models.towers import evaluation_mode
from open_clip import get_model_preprocess_cfg
from torch import Tensor, nn
from tqdm import tqdm

from clim_train.experiments.augment import augment_drawings, on_white
from clim_train.experiments.tiny_texts import TinyClip, text_features

# Note in the weights, for users who try the model on other images.
KNOWS = "drawings of things (emoji), no photographs"


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of one run; the budget is `steps` when given, else `minutes`."""

    minutes: float = 45.0
    steps: int | None = None
    seed: int = 0
    batch_size: int = 256
    lr: float = 1e-3
    stem_lr_factor: float = 0.2
    weight_decay: float = 0.1
    warmup: float = 0.04
    precision: str = "fp32"
    device: str = "cpu"
    save_every_s: float = 300.0

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision={self.precision!r}; legal values are 'fp32' and 'bf16'")
        if (self.steps or self.minutes) <= 0:
            raise ValueError("the budget is empty; give --minutes or --steps above 0")


def drawing_table(
    emoji: EmojiSet, vendors: tuple[str, ...], names: tuple[str, ...]
) -> tuple[Tensor, Tensor]:
    """Return all drawings of some names by some vendors: uint8 RGBA (N, 4, H, W) and the index of
    each one's name (N,)."""
    rows = [(emoji.index(v, n), i) for v in vendors for i, n in enumerate(names) if emoji.has(v, n)]
    index, labels = zip(*rows, strict=True)
    pixels = torch.from_numpy(emoji.pixels[list(index)]).permute(0, 3, 1, 2)
    return pixels.contiguous(), torch.tensor(labels)


def normalize(images: Tensor, model: TinyClip) -> Tensor:
    """Turn uint8 (B, 3, H, W) into float in the model's mean and standard deviation."""
    config = get_model_preprocess_cfg(model)
    mean = torch.tensor(config["mean"], device=images.device).view(3, 1, 1)
    std = torch.tensor(config["std"], device=images.device).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


@torch.no_grad()
def accuracy(
    model: TinyClip, table: tuple[Tensor, Tensor], classes: Tensor, *, batch: int = 256
) -> dict[str, float]:
    """Return image-level top-1 and top-5 of drawings on white against class embeddings (K, C);
    fractions."""
    pixels, labels = table
    device = classes.device
    ranks = []
    with evaluation_mode(model.visual):
        for part, label in zip(pixels.split(batch), labels.split(batch), strict=True):
            images = normalize(on_white(part.to(device)), model)
            scores = model.encode_image(images, normalize=True).float() @ classes.T
            ranks.append((scores > scores.gather(1, label.to(device)[:, None])).sum(1))

    rank = torch.cat(ranks)
    return {"top1": (rank < 1).float().mean().item(), "top5": (rank < 5).float().mean().item()}


def parameter_groups(model: TinyClip, config: PretrainConfig) -> list[dict]:
    """Return the parameter groups: the first three stem stages are frozen, the others have a small
    learning rate, and vectors have no weight decay."""
    stem: Any = model.visual.get_submodule("trunk.patch_embed.backbone")
    stem.conv_stem.requires_grad_(False)
    stem.stages[:3].requires_grad_(False)
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    named = [*model.visual.named_parameters(), ("logit_scale", model.logit_scale)]
    for name, parameter in named:
        if parameter.requires_grad:
            slow = ".backbone." in name
            decays = parameter.ndim > 1 and "_embed" not in name.rsplit(".", 1)[-1]
            groups.setdefault((slow, decays), []).append(parameter)
    return [
        {
            "params": ps,
            "peak": config.lr * (config.stem_lr_factor if slow else 1.0),
            "weight_decay": config.weight_decay if decay else 0.0,
        }
        for (slow, decay), ps in groups.items()
    ]


def schedule(progress: float, warmup: float) -> float:
    """Return the learning rate as a fraction of its peak, at a fraction `progress` of the budget:
    linear warm-up, then half a cosine to 0."""
    if progress < warmup:
        return max(progress, 1e-3) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def save_weights(model: TinyClip, path: Path, metadata: dict) -> None:
    """Write `visual.*` and `logit_scale` as fp16 safetensors with string metadata, atomically."""
    weights = {
        k: v.detach().to("cpu", torch.float16).contiguous()
        for k, v in model.state_dict().items()
        if not k.startswith("text.")
    }
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in metadata.items()
    }
    save_tensors(weights, path, texts)


class Evaluation:
    """The image-level figures stored with the weights: the unseen vendor, and the validation
    concepts."""

    def __init__(self, emoji: EmojiSet, split: EmojiSplit, model: TinyClip, device: str) -> None:
        self.classes: dict[str, Tensor] = {}
        self.tables: dict[str, tuple[Tensor, Tensor]] = {}
        parts = {
            "unseen_vendor": ((split.test_vendor,), split.train_concepts),
            "validation_concepts": (split.train_vendors, split.val_concepts),
        }
        for part, (vendors, names) in parts.items():
            self.classes[part] = nn.functional.normalize(
                text_features(model, names).mean(0), dim=-1
            ).to(device)
            self.tables[part] = drawing_table(emoji, vendors, names)

    def run(self, model: TinyClip) -> dict[str, float]:
        values: dict[str, float] = {}
        for part, table in self.tables.items():
            values |= {
                f"{part}.{key}": round(value, 4)
                for key, value in accuracy(model, table, self.classes[part]).items()
            }
            values[f"{part}.ways"] = len(self.classes[part])
        return values


def train(
    model: TinyClip,
    table: tuple[Tensor, Tensor],
    texts: Tensor,
    config: PretrainConfig,
    on_interval: Callable[[dict[str, float]], Any] | None = None,
) -> dict[str, float]:
    """Train `model.visual` and `model.logit_scale` in place; return steps, seconds and the last
    smoothed loss.

    Args:
        table: drawings and the index of each one's name.
        texts: (templates, names, C) unit features.
        on_interval: `on_interval(state)` is called every `config.save_every_s` seconds.
    """
    device = torch.device(config.device)
    generator = torch.Generator(device).manual_seed(config.seed)
    table, texts = (table[0].to(device), table[1].to(device)), texts.to(device)
    optimizer = torch.optim.AdamW(parameter_groups(model, config), lr=config.lr, betas=(0.9, 0.98))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    total = config.steps or config.minutes * 60
    bar = tqdm(total=round(total), unit="step" if config.steps else "s", desc="pretraining")

    start = saved = time.monotonic()
    state = {"steps": 0, "seconds": 0.0, "loss": float("nan")}
    model.visual.train()
    while (done := state["steps"] if config.steps else state["seconds"]) < total:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(done / total, config.warmup)

        loss = _batch_loss(model, table, texts, config, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        model.logit_scale.data.clamp_(0, math.log(100))

        state["steps"] += 1
        state["seconds"] = time.monotonic() - start
        state["loss"] = (
            loss.item() if state["steps"] == 1 else 0.98 * state["loss"] + 0.02 * loss.item()
        )
        bar.n = min(round(state["steps"] if config.steps else state["seconds"]), bar.total)
        bar.set_postfix(loss=f"{state['loss']:.3f}", steps=state["steps"], refresh=False)
        bar.update(0)
        if on_interval and time.monotonic() - saved > config.save_every_s:
            saved = time.monotonic()
            on_interval(dict(state))

    bar.close()
    model.visual.eval()
    return state


def _batch_loss(
    model: TinyClip,
    table: tuple[Tensor, Tensor],
    texts: Tensor,
    config: PretrainConfig,
    generator: torch.Generator,
) -> Tensor:
    """Return the loss of a random batch of drawings, each under a random template."""
    pixels, labels = table
    device, count = texts.device, (config.batch_size,)
    pick = torch.randint(len(pixels), count, device=device, generator=generator)
    template = torch.randint(len(texts), count, device=device, generator=generator)

    images = normalize(augment_drawings(pixels[pick], generator), model)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        features = model.encode_image(images)

    return contrastive_loss(
        nn.functional.normalize(features.float(), dim=-1),
        texts[template, labels[pick]],
        model.logit_scale.exp(),
        caption_ids=labels[pick],
    )


def pretrain(config: PretrainConfig, output: Path, command: str) -> dict:
    """Pretrain clim-tiny, write its weights, and return the metadata stored with them."""
    torch.manual_seed(config.seed)
    emoji = load_emoji()
    split = emoji.split()
    model = build_clim_tiny(None)
    texts = text_features(model, split.train_names)
    evaluation = Evaluation(emoji, split, model, config.device)
    model.to(config.device, memory_format=torch.channels_last)
    table = drawing_table(emoji, split.train_vendors, split.train_names)
    metadata = {
        "format": "pt",
        "model": TINY,
        "knows": KNOWS,
        "command": command,
        "seed": config.seed,
        "precision": config.precision,
        "batch_size": config.batch_size,
        "data": f"{len(table[0])} drawings of {len(split.train_names)} names by "
        f"{', '.join(split.train_vendors)}",
        "never_seen": f"vendor {split.test_vendor}; {len(split.test_concepts)} test concepts; "
        f"{len(split.val_concepts)} validation concepts",
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {config.device}",
    }

    def keep(state: dict[str, float]) -> dict:
        result = evaluation.run(model)
        tqdm.write(json.dumps({**state, **result}))
        metadata.update(
            {
                "steps": state["steps"],
                "seconds": round(state["seconds"]),
                "loss": round(state["loss"], 4),
                "accuracy": result,
            }
        )
        save_weights(model, output, metadata)
        return metadata

    return keep(train(model, table, texts, config, keep))


def main(argv: list[str] | None = None) -> None:
    """Run the command line of the pretraining."""
    defaults = PretrainConfig()
    parser = CommandParser(description=__doc__.splitlines()[0])
    add_option(parser, "--out", short="-o", old=["--output"], default=TINY_WEIGHTS)
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help="time budget")
    parser.add_argument("--steps", type=int, help="step budget, instead of --minutes")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument("--lr", type=float, default=defaults.lr)
    parser.add_argument("--precision", default=defaults.precision, help="fp32 or bf16 (autocast)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = vars(parser.parse_args(argv))
    output = args.pop("out")
    config = PretrainConfig(**args)
    budget = f"--steps {config.steps}" if config.steps else f"--minutes {config.minutes:g}"
    command = (
        f"python -m clim_train.experiments.pretrain_tiny {budget} --seed {config.seed} "
        f"--batch-size {config.batch_size} --lr {config.lr:g} --precision {config.precision}"
    )
    metadata = pretrain(config, output, command)
    print(
        f"{metadata['steps']} steps in {metadata['seconds']} s; {metadata['accuracy']}; weights: "
        f"{output}"
    )


if __name__ == "__main__":
    main()
