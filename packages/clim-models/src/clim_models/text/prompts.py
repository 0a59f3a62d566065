"""Prompt templates, which put a class name into sentences."""

import unicodedata
from collections.abc import Sequence

# The sentence patterns of ViLD (arXiv 2104.13921, appendix; Apache-2.0 release), as open-vocabulary
# detectors use them: patterns that are not sentences begin with "This is". {} is the class name,
# {article} is "a" or "an".
VILD_TEMPLATES: tuple[str, ...] = (
    "There is {article} {} in the scene.",
    "There is the {} in the scene.",
    "This is a photo of {article} {} in the scene.",
    "This is a photo of the {} in the scene.",
    "This is a photo of one {} in the scene.",
    "itap of {article} {}.",
    "itap of my {}.",
    "itap of the {}.",
    "This is a photo of {article} {}.",
    "This is a photo of my {}.",
    "This is a photo of the {}.",
    "This is a photo of one {}.",
    "This is a photo of many {}.",
    *(
        f"This is a {quality} photo of {target} {{}}."
        for quality in ("good", "bad")
        for target in ("{article}", "the")
    ),
    *(
        f"This is a photo of {target} {quality} {{}}."
        for quality in ("nice", "cool", "weird", "small", "large", "clean", "dirty")
        for target in ("a", "the")
    ),
    *(
        f"This is a {quality} photo of {target} {{}}."
        for quality in ("bright", "dark")
        for target in ("{article}", "the")
    ),
    "This is a photo of a hard to see {}.",
    "This is a photo of the hard to see {}.",
    *(
        f"This is a {quality} photo of {target} {{}}."
        for quality in (
            "low resolution",
            "cropped",
            "close-up",
            "jpeg corrupted",
            "blurry",
            "pixelated",
        )
        for target in ("{article}", "the")
    ),
    "This is a black and white photo of the {}.",
    "This is a black and white photo of {article} {}.",
    *(
        f"This is {article} {kind} {{}}."
        for kind in ("plastic", "toy", "plushie", "cartoon")
        for article in ("a", "the")
    ),
    "This is an embroidered {}.",
    "This is the embroidered {}.",
    "This is a painting of the {}.",
    "This is a painting of a {}.",
)

# One plain sentence and the bare name, for quick looks and for captions that are names.
PHOTO_TEMPLATE: tuple[str, ...] = ("a photo of {article} {}.",)
NAME_TEMPLATE: tuple[str, ...] = ("{}",)

# Byte order marks and spaces of width 0, which copied names carry along.
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060"))


def readable_name(name: str) -> str:
    """Turn a class name into words.

    Underscores become spaces, "/" becomes " or ", all letters are lower case, a final dot goes.
    """
    return name.replace("_", " ").replace("/", " or ").lower().rstrip(".")


def spelling_key(name: str) -> str:
    """Return the words that two spellings of one name share.

    Accents and their letters are one character (NFC); invisible characters do not count.
    """
    visible = str(name).translate(_INVISIBLE)
    return readable_name(unicodedata.normalize("NFC", visible)).strip()


def class_prompts(name: str, templates: Sequence[str] = VILD_TEMPLATES) -> list[str]:
    """Fill every template with one class name: 63 sentences by default.

    The article is "an" if the name begins with a, e, i, o or u in lower case. The published class
    embeddings were made with this rule.

    Raises:
        ValueError: an empty name, or a template without ``{}``.
    """
    words = readable_name(name)
    if not words:
        raise ValueError(f"class name {name!r} has no letters: give every class a name")
    for template in templates:
        if "{}" not in template:
            raise ValueError(
                f"template {template!r} has no place for the class name: put {{}} into it"
            )
    article = "an" if name[0] in "aeiou" else "a"
    return [template.format(words, article=article) for template in templates]
