"""A `Demo` on the tiny LLaVA, made to speak: of its vocabulary only words can be said.

Tests import it as `from tiny_web import speaking_demo` (pytest puts this folder on the path).
"""

import io

import torch
from flmm.web.session import Demo
from PIL import Image
from tiny_grounding import WORDS, tiny_grounded

QUESTION = "the big dog left of a tree"


def first_words(text: str) -> list[str]:
    """A chunker: the first two different words, which need no grammar."""
    return list(dict.fromkeys(text.split()))[:2]


def speaking_demo(**options) -> Demo:
    """Answers of twelve tokens or fewer, words only; the same each time."""
    model = tiny_grounded()
    head = model.lmm.model.lm_head
    with torch.no_grad():
        rows = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(1))
        rows[: WORDS.index("a")] = 0
        rows[len(WORDS) :] = 0
        head.weight.copy_(rows)
    return Demo(model.eval(), **{"max_new_tokens": 12, "chunker": first_words, **options})


def file_of(image: Image.Image, kind: str = "png", **options) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()
