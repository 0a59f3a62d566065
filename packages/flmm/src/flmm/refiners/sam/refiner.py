"""Coarse masks refined by SAM, all phrases of all images in one pass (F-LMM, arXiv 2406.05821).

Letters: B images, n_i phrases of image i, N their sum, t tokens of a phrase, D channels of SAM's
prompts, H W pixels of an image, h w the grid of the image embedding. See geometry.py for the
frames.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flmm.refiners.coarse_only import check_coarse, check_places
from flmm.refiners.embedding import ImageEmbedding, Size
from flmm.refiners.encoder import embedded
from flmm.refiners.refiner import RefinedMasks
from flmm.refiners.sam.decoder import MaskChoice, PromptedImage, decode
from flmm.refiners.sam.encoder import SamImageEncoder
from flmm.refiners.sam.geometry import closest_candidates, masks_to_image
from flmm.refiners.sam.kinds import SamParts, details_of_phrases
from flmm.refiners.sam.places import joined_places, masks_of_places
from flmm.refiners.sam.prompts import (
    PromptKinds,
    SamPrompts,
    check_words,
    encode_prompts,
    encoded_grid,
    of_each,
)
from flmm.refiners.sam.weights import load_sam
from flmm.refiners.square import ResizedImage, Square

PROMPTS = ("use_text", "use_mask", "use_box", "multimask")


class SamRefiner(nn.Module):
    """SAM with a coarse mask, its box and the words of a phrase as prompts.

    The image encoder is frozen, stays in evaluation mode, and runs once per image without
    gradients. Prompt encoder and mask decoder train, except the positional encoding.

    Args:
        sam: SamModel, SamHQModel, Sam2Model (2 and 2.1), Sam3TrackerModel or EdgeTamModel of
            transformers; `load_sam` and `from_pretrained` read one. Its parts become parts of this
            module.
        use_text, use_mask, use_box: which prompts are given; at least one.
        multimask: of SAM's three candidates take the one closest to the coarse mask, instead of its
            single mask.

    Raises:
        ValueError: no prompt is used.
    """

    def __init__(
        self,
        sam: Any,
        *,
        use_text: bool = True,
        use_mask: bool = True,
        use_box: bool = True,
        multimask: bool = False,
    ):
        super().__init__()
        if not (use_text or use_mask or use_box):
            raise ValueError(
                "SAM needs a prompt: leave at least one of use_text, use_mask, use_box on"
            )
        self.use_text, self.use_mask, self.use_box = use_text, use_mask, use_box
        self.multimask = multimask
        self.grad_checkpointing = False
        parts = sam if isinstance(sam, SamParts) else SamParts.of(sam)
        self.sam_kind = parts.kind
        self.image_encoder = parts.encoder
        if self.image_encoder is not None:
            self.image_encoder.requires_grad_(False).eval()
        self.prompt_encoder = parts.prompt_encoder.requires_grad_(True)
        self.mask_decoder = parts.mask_decoder.requires_grad_(True)
        self.prompt_encoder.shared_embedding.requires_grad_(False)
        self.grid_positions = parts.positions
        edge = self.prompt_encoder.input_image_size
        self.square = Square(edge, squashed=self.sam_kind.squashed)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> Self:
        """Load a SAM: a file in the original layout, a folder in transformers', or a hub name.

        Options are those of the class.
        """
        return cls(load_sam(source), **options)

    def forward(
        self,
        images: Sequence[Image.Image | ImageEmbedding],
        coarse: Sequence[Tensor],
        text: Sequence[Sequence[Tensor]] | None = None,
    ) -> list[Tensor]:
        """Return the masks of `refine` alone."""
        return [found.masks for found in self.refine(images, coarse, text)]

    def refine(
        self,
        images: Sequence[Image.Image | ImageEmbedding],
        coarse: Sequence[Tensor],
        text: Sequence[Sequence[Tensor]] | None = None,
    ) -> list[RefinedMasks]:
        """Refine the masks of every phrase, at the size of its image.

        Args:
            images: B images (any mode), or their embeddings from `embed`.
            coarse: per image (n_i, h', w') coarse logits of the whole image, of any grid. Gradients
                flow into them through the mask prompt only.
            text: per image n_i tensors (t, D), the projected words of each phrase; any number of
                them each. Needed and used with `use_text` only.

        Returns:
            One for each image.

        Raises:
            ValueError: numbers or shapes that do not belong together.
        """
        self._check(images, coarse, text)
        embeddings = embedded(self.image_encoder, images)
        prompts = self.encode_prompts([e.size for e in embeddings], coarse, text)
        counts = [len(masks) for masks in coarse]
        low_res, ious = self.decode(embeddings, prompts, counts)
        refined = []
        for i, (part, scores) in enumerate(
            zip(low_res.split(counts), ious.split(counts), strict=True)
        ):
            size = embeddings[i].size
            full = masks_to_image(part.flatten(0, 1), size, square=self.square)
            candidates = full.view(len(part), part.shape[1], *size)  # (n_i, K, H, W)
            chosen = torch.zeros(len(part), dtype=torch.int64, device=full.device)
            if self.multimask:
                chosen = closest_candidates(candidates, prompts.binary[i])
            rows = torch.arange(len(part), device=full.device)
            # SAM's own prediction is a regression, which can leave the range.
            expected = scores.detach().float()[rows, chosen].clamp(0, 1)
            refined.append(RefinedMasks(candidates[rows, chosen], expected))
        return refined

    def refine_places(
        self,
        images: Sequence[Image.Image | ImageEmbedding],
        places: Sequence[Sequence[Tensor]],
    ) -> list[RefinedMasks]:
        """Make the masks of boxes and points, as `Refiner.refine_places` says. Of a point SAM makes
        three masks; the one with the best predicted IoU counts.

        Raises:
            ValueError: as `check_places`.
        """
        check_places(images, places)
        embeddings = embedded(self.image_encoder, images)
        steady = MaskChoice(steady=self._may_give_way())
        made = {}
        for edges, choice in ((4, steady), (2, MaskChoice(multimask=True))):
            prompts, counts = joined_places(
                self.prompt_encoder, embeddings, places, edges, self.square
            )
            if any(counts):
                made[edges] = self.decode(embeddings, prompts, counts, choice)
        return masks_of_places(made, embeddings, places, square=self.square)

    def without_encoder(self) -> "SamRefiner":
        """Return the part that trains: a refiner of embeddings with the same prompt encoder and
        mask decoder."""
        return SamRefiner(
            SamParts(
                self.sam_kind, None, self.prompt_encoder, self.mask_decoder, self.grid_positions
            ),
            use_text=self.use_text,
            use_mask=self.use_mask,
            use_box=self.use_box,
            multimask=self.multimask,
        )

    def embed(self, images: Sequence[Image.Image | ResizedImage]) -> list[ImageEmbedding]:
        """Run the image encoder on all images at once; `forward` takes its output instead of
        images.

        Raises ValueError when this refiner has no image encoder.
        """
        return self.frozen_encoder().embed(images)

    def frozen_encoder(self) -> SamImageEncoder:
        """Return the image encoder.

        Raises:
            ValueError: this refiner has none.
        """
        if self.image_encoder is None:
            raise ValueError(
                "this SamRefiner has no image encoder: pass ImageEmbeddings instead of images"
            )
        return self.image_encoder

    @property
    def text_width(self) -> int:
        """E: channels of a projected word."""
        return self.prompt_encoder.hidden_size

    def encode_prompts(
        self,
        sizes: Sequence[Size],
        coarse: Sequence[Tensor],
        text: Sequence[Sequence[Tensor]] | None = None,
    ) -> SamPrompts:
        """Encode the prompts of all phrases.

        Args:
            sizes: (H, W) of the images.
            coarse, text: as in `forward`.
        """
        kinds = PromptKinds(self.use_text, self.use_mask, self.use_box)
        return encode_prompts(
            self.prompt_encoder, sizes, coarse, text, square=self.square, kinds=kinds
        )

    def decode(
        self,
        embeddings: Sequence[ImageEmbedding],
        prompts: SamPrompts,
        counts: Sequence[int],
        choice: MaskChoice | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return logits (N, K, 4h, 4w) of the square and predicted IoU (N, K).

        Args:
            counts: the n_i of the images.
            choice: which masks are read; None: those of phrases, as this refiner was built.
        """
        choice = choice or MaskChoice(self.multimask, steady=self._may_give_way())
        features = torch.stack([e.features.to(prompts.channels) for e in embeddings])
        stacked = []
        for maps in zip(*(e.details for e in embeddings), strict=True):
            stacked.append(torch.stack([m.to(prompts.channels) for m in maps]))
        details = details_of_phrases(self.mask_decoder, self.sam_kind, features, stacked)
        features = features.flatten(2).transpose(1, 2).contiguous()  # (B, h w, D)
        owner = [i for i, count in enumerate(counts) for _ in range(count)]
        lengths = torch.tensor(prompts.lengths, dtype=torch.int64)
        encode = self.grid_positions or self.prompt_encoder.shared_embedding
        grid = self.prompt_encoder.image_embedding_size
        positions = encoded_grid(encode, grid, features.device).to(features)
        at_once = self._phrases_per_pass(len(owner))
        passes = []
        for start in range(0, max(len(owner), 1), at_once):
            part = slice(start, start + at_once)
            longest = max(prompts.lengths[part], default=0)
            present = (torch.arange(longest) < lengths[part, None]).to(features.device)  # (N, S)
            image = (
                of_each(features, owner[part]),
                prompts.channels[part],
                prompts.weight,
                prompts.bias,
                positions,
            )
            fine = [of_each(maps, owner[part]) for maps in details]
            passes.append(self._run(choice, *image, prompts.sparse[part, :longest], present, *fine))
        masks, ious = (torch.cat(results) for results in zip(*passes, strict=True))
        return masks, ious

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.image_encoder is not None:
            self.image_encoder.eval()
        return self

    def blank_embedding(self, device: torch.device) -> ImageEmbedding:
        """Return the embedding of no image, 64 x 64 pixels: zeros of the right shapes."""
        h, w = self.prompt_encoder.image_embedding_size
        channels = self.prompt_encoder.hidden_size
        shapes: list[tuple[int, int, int]] = []
        if self.sam_kind.finer:
            shapes = [(channels // 8, 4 * h, 4 * w), (channels // 4, 2 * h, 2 * w)]
        elif self.sam_kind.hq:
            shapes = [(self.mask_decoder.compress_vit_conv1.in_channels, h, w)]
        details = tuple(torch.zeros(shape, device=device) for shape in shapes)
        return ImageEmbedding(torch.zeros(channels, h, w, device=device), (64, 64), details)

    @property
    def kind(self) -> str:
        """The `model_type` that transformers gives this SAM."""
        return self.sam_kind.name

    def facts(self) -> dict[str, Any]:
        """Return the prompts in use, as options of `SamRefiner`."""
        return {name: getattr(self, name) for name in PROMPTS}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the decoder's activations in the backward pass: less memory, more time, the
        same numbers."""
        self.grad_checkpointing = enable

    def direct_parameters(self) -> list[nn.Parameter]:
        """List the parameters that are read outside the forward of the module that owns them: all
        that train.

        Engines that take weights away between forwards (ZeRO-3) must know them.
        """
        return [p for p in self.parameters() if p.requires_grad]

    def _may_give_way(self) -> bool:
        """Return whether SAM 2's single mask gives way to a candidate where it is not steady.

        Not where words are prompts: heads train the single mask only, and the candidates have not
        learned what the words mean.
        """
        steady = getattr(self.mask_decoder, "dynamic_multimask_via_stability", False)
        return bool(steady) and not self.training and not self.use_text and not self.multimask

    def _phrases_per_pass(self, phrases: int) -> int:
        """Return how many phrases the decoder handles at a time: all of them, but one on a CPU
        without gradients, where its maps then stay in the cache."""
        on_cpu = self.prompt_encoder.no_mask_embed.weight.device.type == "cpu"
        return 1 if on_cpu and not torch.is_grad_enabled() else max(phrases, 1)

    def _run(self, choice: MaskChoice, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        def run(*inputs: Tensor) -> tuple[Tensor, Tensor]:
            features, channels, weight, bias, positions, sparse, present, *details = inputs
            image = PromptedImage(
                features, channels, weight, bias, positions, grid=grid, details=tuple(details)
            )
            return decode(
                self.mask_decoder,
                self.sam_kind,
                image,
                sparse=sparse,
                present=present,
                choice=choice,
            )

        grid = self.prompt_encoder.image_embedding_size
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(run, *inputs, use_reentrant=False)
        return run(*inputs)

    def _check(
        self,
        images: Sequence[Image.Image | ImageEmbedding],
        coarse: Sequence[Tensor],
        text: Sequence[Sequence[Tensor]] | None,
    ) -> None:
        check_coarse(images, coarse)
        if self.use_text:
            check_words(text, [len(masks) for masks in coarse], width=self.text_width)
