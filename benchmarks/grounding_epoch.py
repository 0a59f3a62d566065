"""An epoch of training the heads with kept features of the frozen models against one that computes
them.

Both read the same pictures through `GroundingLoader`, and end with the losses and gradients of
every batch. Image tower, SAM and mask head have the sizes of LLaVA-1.5's CLIP ViT-L/14, SAM ViT-B
and F-LMM; weights are random. The language model is a thin one: the real one has over ten times its
weights, so that a real run gains more.
"""

import io
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import side_by_side as sbs
import torch
import transformers as hf
from clim_data import GroundingSample, Phrase, SkipReport
from clim_models import UNetHead
from flmm import FeatureCache, GroundedLMM, GroundingLoader, GroundingTask, SamRefiner
from flmm.adapters import build_lmm
from flmm.training import frozen_facts
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

WORDS = ("<unk>", "<s>", "</s>", "<image>", "a", "dog", "tree", "left", "of")
TOLERANCE = 1e-6


class HalfImages:
    """Rectangles that are the masks of the phrases."""

    def __init__(self, phrases: int):
        self.phrases = phrases

    def masks(self, size: tuple[int, int]) -> np.ndarray:
        masks = np.zeros((self.phrases, *size), dtype=bool)
        for k, mask in enumerate(masks):
            mask[k : size[0] // 2 + k, : size[1] // 2] = True
        return masks


class Pictures:
    """Noise of `px` with so many phrases each."""

    def __init__(self, images: int, phrases: int, px: tuple[int, int]):
        self.skipped, self.phrases, self.files = SkipReport(), phrases, []
        noise = np.random.default_rng(0)
        for _ in range(images):
            file = io.BytesIO()
            Image.fromarray(noise.integers(0, 255, (*px, 3), dtype=np.uint8)).save(file, "jpeg")
            self.files.append(file.getvalue())

    def __len__(self) -> int:
        return len(self.files)

    def stamp(self) -> str:
        return f"{len(self)}|{self.phrases}"

    def at(self, number: int, *, epoch: int) -> GroundingSample:
        segments = tuple(("a dog" if k % 2 else "a tree left of", k) for k in range(self.phrases))
        phrases = tuple(Phrase(text, False, True, (k,)) for text, k in segments)
        masks = HalfImages(self.phrases)
        return GroundingSample(
            f"{number:04d}", number, "narrative", segments, phrases, self.files[number], masks
        )


def grounded(args) -> GroundedLMM:
    """A LLaVA, a SAM and heads, all with random weights."""
    torch.manual_seed(0)
    tower = {
        "model_type": "clip_vision_model",
        **transformer(args.tower),
        "image_size": 336,
        "patch_size": 14,
    }
    llama = {"model_type": "llama", **transformer(args.llama), "vocab_size": 16}
    config = hf.LlavaConfig(
        vision_config=tower, text_config=llama, image_token_index=WORDS.index("<image>")
    )
    words = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    processor = hf.CLIPImageProcessorPil(size={"shortest_edge": 336})
    lmm = build_lmm(hf.LlavaForConditionalGeneration(config).to(args.device), processor, tokenizer)
    width, layers, heads = args.sam
    tower = hf.SamVisionConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=args.sam_px,
    )
    sam = hf.SamModel(
        hf.SamConfig(vision_config=tower, prompt_encoder_config={"image_size": args.sam_px})
    )
    model = GroundedLMM(lmm, UNetHead(lmm.map_channels, base=args.base), SamRefiner(sam))
    return model.to(args.device).train()


def transformer(sizes: Sequence[int]) -> dict[str, int]:
    """Settings of a transformer of (width, layers, heads)."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return dict(zip(names, (*sizes, 4 * sizes[0]), strict=True))


class Epoch:
    """Called: losses (batches,) of one epoch, gradients made. With `keep` every feature is in a
    cache beforehand."""

    def __init__(self, args, *, keep: bool):
        self.model, self.data = (
            grounded(args),
            Pictures(args.images, args.phrases, tuple(args.image_px)),
        )
        self.device, self.folder, self.cache = args.device, None, None
        if keep:
            self.folder = Path(tempfile.mkdtemp(prefix="grounding-epoch-"))
            facts = frozen_facts(self.model, data={"p": self.data.stamp()}, requests={})
            self.cache = FeatureCache(self.folder, facts)
            self()

    def __call__(self) -> Tensor:
        task = GroundingTask(self.model, cache=self.cache)
        loader = GroundingLoader(
            {"p": self.data},
            self.model.lmm,
            square=self.model.sam.square,
            batch_size=1,
            cache=self.cache,
            shuffle=False,
        )
        losses = []
        for batch in loader:
            loss = task.loss(batch.to(self.device))["loss"]
            loss.backward()
            losses.append(loss.detach())
        self.model.zero_grad()
        return torch.stack(losses)

    def close(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def epoch(args, *, keep: bool) -> Callable[[], Tensor]:
    return Epoch(args, keep=keep)


def comparisons(args) -> list[sbs.Comparison]:
    height, width = args.image_px
    return [
        sbs.Comparison(
            name="an epoch of the heads",
            sizes=f"{args.images} images of {width}x{height} px, {args.phrases} phrases each; "
            f"width x layers: CLIP {by(args.tower)} at 336 px, Llama {by(args.llama)}, SAM encoder {by(args.sam)} at "
            f"{args.sam_px} px; "
            f"U-Net of base {args.base}, fp32",
            ours=sbs.Candidate("kept features", partial(epoch, args, keep=True)),
            other=sbs.Candidate("computed", partial(epoch, args, keep=False)),
            agree=partial(sbs.largest_difference, tolerance=TOLERANCE),
            items=args.images,
            item="image",
        )
    ]


def by(sizes: Sequence[int]) -> str:
    """Width and layers as text."""
    return f"{sizes[0]} x {sizes[1]}"


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=3)
    three = {"type": int, "nargs": 3, "metavar": ("WIDTH", "LAYERS", "HEADS")}
    parser.add_argument("--images", type=int, default=2, help="images of the epoch")
    parser.add_argument("--phrases", type=int, default=3, help="phrases of an image")
    parser.add_argument(
        "--image-px", type=int, nargs=2, default=[480, 640], help="height and width of the images"
    )
    parser.add_argument("--tower", **three, default=[1024, 24, 16], help="the LMM's image tower")
    parser.add_argument("--llama", **three, default=[1024, 4, 16], help="the LMM's language model")
    parser.add_argument("--sam", **three, default=[768, 12, 12], help="SAM's image encoder")
    parser.add_argument("--sam-px", type=int, default=1024, help="side of SAM's own square")
    parser.add_argument(
        "--base", type=int, default=64, help="channels of the mask head's first stage"
    )
    args = parser.parse_args(argv)
    return sbs.run("grounding_epoch", comparisons(args), sbs.settings_from(args))


if __name__ == "__main__":
    main()
