"""How fast flmm is: attention capture at 7B size, SAM's decoder by number of phrases, and a whole
image."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import torch
from attention_capture import captured, random_model, returned, sequence
from flmm import GroundedLMM, ground
from flmm.grounders import phrase_features
from flmm.refiners import ResizedImage
from grounding_epoch import Pictures
from PIL import Image
from sam_decoder import loop, together
from torch.utils.flop_counter import FlopCounterMode

from gpu_parts.grounding_models import SEVEN_B_WIDE, grounded_llava
from gpu_parts.record import Part
from gpu_parts.timing import Ceiling, Timing, ceiling, time_calls

LAYERS_OF_7B = 32
PHRASES = (1, 5, 20)
TINY_PHRASES = (1, 2, 3)
GIB = 2**30


def run(part: Part) -> None:
    began = time.monotonic()
    card = ceiling(part.device, tiny=part.tiny)
    part.figure("one large bf16 product", card.flops / 1e12, "TFLOP/s")
    for subject, seconds in ((capture, 0), (sam_decoder, 10), (one_image, 15)):
        name = subject.__name__.replace("_", " ")
        if part.seconds - (time.monotonic() - began) < seconds:
            part.check(f"{name} left out: no time", False)
            continue
        with part.guarded(name):
            subject(Stopwatch(part, card))
        if part.on_gpu:
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Stopwatch:
    """Times calls of a part, and compares them with what the card can do."""

    part: Part
    card: Ceiling

    def time(self, call: Callable[[], Any]) -> Timing:
        if self.part.tiny:
            return time_calls(call, self.part.device, repeats=2, warmup=1)
        return time_calls(call, self.part.device, repeats=10, warmup=2, limit=2.0)

    def milliseconds(
        self, name: str, call: Callable[[], Any], *, share: bool = False, detail: str = ""
    ) -> Timing:
        """Report the time of a call, and with `share` its arithmetic against the bf16 product."""
        timing = self.time(call)
        of_card = flops_of(call) / timing.seconds / self.card.flops if share else None
        spread = f"{1000 * timing.low:.2f} to {1000 * timing.high:.2f} ms"
        text = f"{spread}, {detail}" if detail else spread
        self.part.figure(name, 1000 * timing.seconds, "ms", share=of_card, detail=text)
        return timing

    def allocated(self) -> int:
        return torch.cuda.memory_allocated(self.part.device) if self.part.on_gpu else 0


def flops_of(call: Callable[[], Any]) -> int:
    """Multiplications and additions of the products, convolutions and attentions of a call (causal
    ones whole)."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


# -- attention capture -----------------------------------------------------------------------------


def capture(watch: Stopwatch) -> None:
    """Rows beside SDPA, against eager attention that returns all of its matrices; and SDPA by
    itself."""
    part = watch.part
    layers, heads, width = (2, 4, 32) if part.tiny else (4, 32, 128)
    tokens, image = (120, 64) if part.tiny else (2900, 2304)
    phrases = 3 if part.tiny else 20
    shape = {
        "layers": layers,
        "heads": heads,
        "head_width": width,
        "dtype": "bfloat16",
        "device": str(part.device),
    }
    work = {"tokens": tokens, "image_tokens": image, "phrases": phrases}

    found = {}
    for name, build in (
        ("SDPA without capture", plain),
        ("capture beside SDPA", captured),
        ("eager, output_attentions=True", returned),
    ):
        call = build(shape, work)
        before = watch.allocated()
        sizes = f"{layers} layers of {heads} heads of {width}, {tokens} tokens"
        timing = watch.milliseconds(f"7B size, {name}", call, share=True, detail=sizes)
        found[name] = timing.seconds, timing.peak_bytes - before
        del call
        if part.on_gpu:
            torch.cuda.empty_cache()

    scale = LAYERS_OF_7B / layers
    for name, (seconds, peak) in found.items():
        detail = f"{layers} layers, times {scale:.0f}"
        part.figure(f"7B size, {name}: 32 layers", 1000 * seconds * scale, "ms", detail=detail)
        if part.on_gpu:
            part.figure(
                f"7B size, {name}: peak beside the weights",
                peak / GIB,
                "GiB",
                detail=f"{layers} layers",
            )
    own, rows, whole = (seconds for seconds, _ in found.values())
    part.figure("7B size: capture adds to SDPA", 100 * (rows / own - 1), "%")
    part.figure("7B size: capture is faster than eager", whole / rows, "times")
    if part.on_gpu:
        # All matrices of all layers are held until the pass is over.
        kept = 2 * heads * tokens**2 * LAYERS_OF_7B / GIB
        part.figure(
            "7B size, eager: matrices kept of 32 layers", kept, "GiB", detail="by arithmetic"
        )


def plain(shape: dict, work: dict) -> Callable[[], Any]:
    """The same model with torch's attention, which nobody listens to."""
    model = random_model(**shape)
    model.set_attn_implementation("sdpa")
    ids, _, _ = sequence(**work, device=shape["device"])
    return torch.no_grad()(partial(model, input_ids=ids, use_cache=False))


# -- SAM -------------------------------------------------------------------------------------------


def sam_decoder(watch: Stopwatch) -> None:
    """All phrases in one pass against a loop of single calls of transformers' decoder."""
    part = watch.part
    size, edge = ((96, 128), 128) if part.tiny else ((480, 640), 1024)
    numbers = TINY_PHRASES if part.tiny else PHRASES
    for phrases in numbers:
        label = f"SAM decoder, {phrases} phrase{'s' * (phrases > 1)}"
        ours = together(phrases, size, edge, device=str(part.device))
        single = loop(phrases, size, edge, device=str(part.device))
        rows = watch.milliseconds(f"{label}, one pass", ours, detail="float32 weights")
        singles = watch.milliseconds(f"{label}, loop", single, detail="float32 weights")
        part.figure(f"{label}: one pass is faster", singles.seconds / rows.seconds, "times")
        if phrases == numbers[-1]:
            with torch.autocast(part.device.type, torch.bfloat16):
                watch.milliseconds(f"{label}, one pass, bf16 autocast", ours)


# -- a whole image ---------------------------------------------------------------------------------


def one_image(watch: Stopwatch) -> None:
    """`flmm ground` of 20 phrases, whole and by its parts."""
    part = watch.part
    model = grounded_llava(part, SEVEN_B_WIDE)
    # as `load_grounded` has it on a GPU: the LMM in bfloat16, SAM and heads in float32
    model.lmm.model.bfloat16()
    size = (96, 128) if part.tiny else (480, 640)
    image = Image.open(BytesIO(Pictures(1, 1, size).files[0])).convert("RGB")
    count = (TINY_PHRASES if part.tiny else PHRASES)[-1]
    phrases = ["a dog" if k % 2 else "a tree left of" for k in range(count)]
    about = describe(model)

    whole = watch.milliseconds(
        f"an image with {count} phrases", partial(ground, image, phrases, model), detail=about
    )
    part.figure(f"an image with {count} phrases: rate", 1 / whole.seconds, "images/s")
    if part.on_gpu:
        part.figure(
            f"an image with {count} phrases: peak memory",
            whole.peak_gib,
            "GiB",
            detail="weights included",
        )

    read = torch.no_grad()(partial(phrase_features, model, image, phrases))
    watch.milliseconds("of which: the LMM reads image and phrases", read, share=True)
    encode = partial(model.sam.embed, [image])
    watch.milliseconds("of which: SAM's image encoder, float32", encode, share=True)
    features, embeddings = read(), encode()
    watch.milliseconds(
        "of which: mask head and SAM's decoder",
        torch.no_grad()(partial(model.ground, [features], embeddings)),
    )

    clock = Stopwatch(
        Part(part.name, torch.device("cpu"), part.tiny, 0, part.folder, part.path), watch.card
    )
    prepared = clock.time(
        lambda: (model.lmm.family.prepare(image), ResizedImage.of(image, model.sam.square))
    )
    part.figure("of which: resizing on the CPU, for both", 1000 * prepared.seconds, "ms")

    model.sam.image_encoder.bfloat16()
    watch.milliseconds("SAM's image encoder, bf16", encode, share=True)
    watch.milliseconds(
        f"an image with {count} phrases, SAM's image encoder in bf16",
        partial(ground, image, phrases, model),
    )


def describe(model: GroundedLMM) -> str:
    tower, encoder = (
        model.lmm.model.model.vision_tower.config,
        model.sam.image_encoder.vision.config,
    )
    return (
        f"Llama of {model.lmm.layers} layers x {model.lmm.hidden_size} (7B has 32), "
        f"CLIP of {tower.num_hidden_layers} x {tower.hidden_size}, "
        f"SAM of {encoder.num_hidden_layers} x {encoder.hidden_size}"
    )
