"""Rows of attention against eager attention; generation, SAM and a training of the heads on the
device."""

import copy
from dataclasses import replace
from io import BytesIO

import torch
from flmm import (
    FeatureCache,
    GroundedLMM,
    GroundingLoader,
    GroundingTask,
    ImageEmbedding,
    PhraseFeatures,
    Sample,
    TokenizedText,
)
from flmm.training import frozen_facts
from grounding_epoch import Pictures
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from gpu_parts.attention_rows import (
    EPS,
    GEOMETRIES,
    HEAD_WIDTHS,
    Geometry,
    float32_tolerance,
    rows_of_attention,
    rows_of_padded_batch,
)
from gpu_parts.exact import exact_float32
from gpu_parts.grounding_models import FEW_LAYERS, grounded_llava, never_ends
from gpu_parts.record import Part

PICTURES = 4
STEPS = 20  # a multiple of PICTURES, also in a rehearsal
TINY_STEPS = 4


def run(part: Part) -> None:
    with exact_float32():
        for name in GEOMETRIES:
            for width in HEAD_WIDTHS:
                with part.guarded(f"rows of {name}, heads of {width}"):
                    rows_of_attention(part, Geometry.of(name, width, tiny=part.tiny))
        with part.guarded("rows of a batch padded on the left"):
            rows_of_padded_batch(part)

        with part.guarded("a grounded LLaVA on the device"):
            model = grounded_llava(part, FEW_LAYERS)
            for subject in (sam_refiner, heads_step, generation, heads_with_kept_features):
                with part.guarded(subject.__name__.replace("_", " ")):
                    subject(part, model)


# -- generation ------------------------------------------------------------------------------------


def generation(part: Part, model: GroundedLMM) -> None:
    """Features kept while an answer is generated, against a second forward pass over prompt and
    answer."""
    never_ends(model)
    lmm, spans = model.lmm, [(0, 2), (3, 4), (5, 9)]
    image = lmm.family.prepare(picture(120, 160))
    prompt = torch.tensor(lmm.tokenizer.encode("<image> a dog left of a tree"))

    def both() -> tuple[PhraseFeatures, PhraseFeatures, Sample]:
        said = lmm.generate([image], prompt, max_new_tokens=12)
        sample = Sample(image, with_answer(prompt, said.ids[:-1], spans))
        return said.phrases(spans), lmm([sample])[0], sample

    kept, again, _ = both()
    width = lmm.hidden_size
    largest = again.maps.max().item()
    part.close_to(
        "generation: maps, float32",
        kept.maps / largest,
        again.maps / largest,
        float32_tolerance(width),
    )
    # Hidden states are sums too; those after the last norm have a size of about 1, the others of a
    # few.
    tolerance = again.states.abs().max().item() * float32_tolerance(width)
    part.close_to("generation: hidden states, float32", kept.states, again.states, tolerance)

    # One token at a time and all at once round differently in 16 bits: each is as far from float32
    # as the other.
    lmm.model.bfloat16()
    kept, again, sample = both()
    lmm.model.float()
    truth = lmm([sample])[0]
    for what in ("maps", "states"):
        one, other, exact = (getattr(features, what).float() for features in (kept, again, truth))
        ratio = ((one - exact).abs().mean() / (other - exact).abs().mean()).item()
        part.within(
            f"generation: {what}, bf16: mean error in units of a second forward's", ratio, 1.5
        )


def with_answer(prompt: Tensor, answer: Tensor, spans: list[tuple[int, int]]) -> TokenizedText:
    owners = torch.full_like(answer, -1)
    for number, (start, end) in enumerate(spans):
        owners[start:end] = number
    before = torch.full_like(prompt, -1)
    return TokenizedText(torch.cat([prompt, answer]), torch.cat([before, owners]), len(spans))


def picture(height: int, width: int) -> Image.Image:
    return Image.open(BytesIO(Pictures(1, 1, (height, width)).files[0]))


# -- SAM and the heads -----------------------------------------------------------------------------


def sam_refiner(part: Part, model: GroundedLMM) -> None:
    sam = model.sam
    reference = copy.deepcopy(sam).cpu()
    image = picture(480, 640)
    coarse, text = prompts(5, 256)

    [found], [wanted] = sam.embed([image]), reference.embed([image])
    # Errors of sums over the width and of scores ten times as large, through all layers; the neck
    # ends in a norm.
    depth, width = len(sam.image_encoder.vision.layers), sam.image_encoder.vision.config.hidden_size
    tolerance = 40 * depth * width**0.5 * EPS * wanted.features.abs().max().item()
    part.close_to(
        "SAM's image encoder, float32, against the CPU", found.features, wanted.features, tolerance
    )

    given = (
        on(wanted, part.device),
        coarse.to(part.device),
        [words.to(part.device) for words in text],
    )
    with torch.no_grad():
        [masks] = sam([given[0]], [given[1]], [given[2]])
        [expected] = reference([wanted], [coarse], [text])
        with torch.autocast(part.device.type, torch.bfloat16):
            [rough] = sam([given[0]], [given[1]], [given[2]])
    # Two layers of attention, sums of 256 channels and of 4096 places, then of 256 rows and columns
    # of the mask.
    tolerance = 2000 * EPS * expected.abs().max().item()
    part.close_to("SAM's masks of 5 phrases, float32, against the CPU", masks, expected, tolerance)

    # Relative errors of 16 bits grow to a few per cent over a dozen layers, and enter the cosine
    # squared.
    part.at_least(
        "SAM's masks of 5 phrases, bf16 autocast: cosine to float32",
        least_cosine(rough, masks),
        0.99,
    )
    sixteen = copy.deepcopy(sam.image_encoder.vision).bfloat16()
    with torch.no_grad():
        pixels = torch.randn(1, 3, sam.square.edge, sam.square.edge, device=part.device)
        exact, rough = (
            encoder(pixels.to(dtype)).last_hidden_state.float()
            for encoder, dtype in (
                (sam.image_encoder.vision, torch.float32),
                (sixteen, torch.bfloat16),
            )
        )
    part.at_least("SAM's image encoder, bf16: cosine to float32", least_cosine(rough, exact), 0.99)


def prompts(phrases: int, channels: int) -> tuple[Tensor, list[Tensor]]:
    """Coarse logits of rectangles, whose boxes no rounding moves, and 1 to 5 words for each."""
    coarse = torch.full((phrases, 48, 64), -4.0)
    for k, mask in enumerate(coarse):
        mask[4 + 5 * k : 20 + 5 * k, 6 + 8 * k : 24 + 8 * k] = 4.0
    words = torch.Generator().manual_seed(0)
    return coarse, [torch.randn(1 + k % 5, channels, generator=words) for k in range(phrases)]


def least_cosine(found: Tensor, wanted: Tensor) -> float:
    return F.cosine_similarity(found.flatten(1).double(), wanted.flatten(1).double()).min().item()


def on(embedding: ImageEmbedding, device: torch.device) -> ImageEmbedding:
    return replace(embedding, features=embedding.features.to(device))


def heads_step(part: Part, model: GroundedLMM) -> None:
    """Loss and gradients of one step of the heads against the CPU, from the same features."""
    data = Pictures(2, 3, (96, 128) if part.tiny else (240, 320))
    batch = next(iter(loader(model, data, None)))
    task = GroundingTask(model)
    made = task.frozen_features(batch.items, part.device)
    items = [replace(item, kept=kept) for item, kept in zip(batch.items, made, strict=True)]
    batch = replace(batch, items=tuple(items))

    on_cpu = GroundingTask(
        model
    )  # all features are kept, so that its heads are all of it that runs
    on_cpu.model = copy.deepcopy(task.model).cpu()
    losses: list[float] = []
    gradients: list[dict[str, Tensor]] = []
    for which, device in ((task, part.device), (on_cpu, torch.device("cpu"))):
        loss = which.loss(batch.to(device))["loss"]
        loss.backward()
        losses.append(loss.item())
        parameters = which.trainable_parameters()
        gradients.append(
            {name: p.grad.cpu() for name, p in parameters.items() if p.grad is not None}
        )
        which.model.zero_grad()

    # A mean over thousands of pixels; where a coarse mask is nearly even, the box that prompts SAM
    # may move by a pixel.
    part.within("heads: loss against the CPU, float32", abs(losses[0] / losses[1] - 1), 1e-3)
    alike = gradients[0].keys() == gradients[1].keys()
    part.check(
        "heads: the same parameters have gradients as on the CPU",
        alike,
        f"{len(gradients[0])} of them",
    )
    found, wanted = (
        torch.cat([g.flatten() for g in of_device.values()])[None] for of_device in gradients
    )
    part.at_least(
        "heads: gradients against the CPU, float32: cosine", least_cosine(found, wanted), 0.999
    )


def heads_with_kept_features(part: Part, model: GroundedLMM) -> None:
    """Some steps, the frozen models in bfloat16 as in a training: computed each time, and read from
    a cache."""
    model.lmm.model.bfloat16()
    model.sam.image_encoder.bfloat16()
    data = Pictures(PICTURES, 3, (96, 128) if part.tiny else (240, 320))
    start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    facts = frozen_facts(model, data={"pictures": data.stamp()}, requests={})
    cache = FeatureCache(part.folder / "features", facts)
    for batch in loader(model, data, cache):
        with torch.no_grad():
            GroundingTask(model, cache=cache).loss(batch.to(part.device))
    cache.refresh()

    computed, _ = trained(part, model, start, data, None)
    read, kept = trained(part, model, start, data, cache)
    steps = len(read)
    part.check(
        f"heads: all features of {steps} steps were in the cache",
        kept == steps,
        f"{kept} of {steps}",
    )
    difference = [abs(a / b - 1) for a, b in zip(read, computed, strict=True)]
    # The same numbers, kept exactly, through the same kernels.
    part.within(
        "heads: loss of the first step, features kept against computed", difference[0], 1e-5
    )
    # Interpolation adds up its gradients in any order on a GPU, and Adam divides small ones by
    # their size: two runs on the same features differ, and by how much is measured.
    again, _ = trained(part, model, start, data, None)
    spread = max(abs(a / b - 1) for a, b in zip(again, computed, strict=True))
    name = f"heads: losses of {steps} steps, features kept against computed"
    detail = f"from {computed[0]:.3f} to {computed[-1]:.3f}; computed twice: {spread:.1e}"
    part.within(name, max(difference), max(5e-3, 4 * spread), detail)


def loader(model: GroundedLMM, data: Pictures, cache: FeatureCache | None) -> GroundingLoader:
    options = {"square": model.sam.square, "batch_size": 1, "shuffle": False, "cache": cache}
    return GroundingLoader({"pictures": data}, model.lmm, **options)


def trained(
    part: Part,
    model: GroundedLMM,
    start: dict[str, Tensor],
    data: Pictures,
    cache: FeatureCache | None,
) -> tuple[list[float], int]:
    """Losses of the steps from the weights `start`, and how many steps had features from the
    cache."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(start[name])
    task = GroundingTask(model.train(), cache=cache)
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4, weight_decay=0.01)
    losses: list[float] = []
    kept = 0
    while len(losses) < (TINY_STEPS if part.tiny else STEPS):
        for batch in loader(model, data, cache):
            found = task.loss(batch.to(part.device))
            found["loss"].backward()
            nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(found["loss"].item())
            kept += int(cache is not None and found["kept"].item() == 1)
    return losses, kept
