"""Vectors of named classes: from a vocabulary file, from embeddings on disk, or computed.

Letters: K classes, M phrases under `not` of a vocabulary, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from clim_data import decode_rgb
from clim_data.processes import Ranks
from clim_models.text import EmbeddedVocabulary, Vocabulary, embed_vocabulary
from torch import Tensor

from clim_eval.embeddings import TEMPLATES, embed_with_bar, load_class_embeddings

if TYPE_CHECKING:
    from clim_models import RegionModel


@dataclass(frozen=True)
class VocabularyFile:
    """A vocabulary, and the folder to which the paths of its example pictures are relative.

    Attributes:
        path: of the file.
        vocabulary: its classes.
    """

    path: Path
    vocabulary: Vocabulary

    @classmethod
    def read(cls, path: Path) -> "VocabularyFile":
        """Read a vocabulary file, see `Vocabulary.read`."""
        return cls(path, Vocabulary.read(path))

    def read_example(self, name: str) -> Tensor:
        """Read an example picture, upright: uint8 (3, H, W)."""
        return decode_rgb(self.path.parent / name, oriented=True)

    def check_names(self, names: Sequence[str]) -> None:
        """Refuse a vocabulary without some of the classes.

        Raises:
            ValueError: names the classes that are missing.
        """
        known = set(self.vocabulary.names)
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(
                f"{self.path} has no class {', '.join(map(repr, missing[:8]))} ({len(missing)} of "
                f"{len(names)} classes of the data): add them, spelled as in the annotation file"
            )

    def embed(
        self, model: "RegionModel", templates: str, *, cache: Path | None = None
    ) -> EmbeddedVocabulary:
        """Embed the classes with templates by name."""
        options: dict[str, Any] = {"templates": TEMPLATES[templates], "cache": cache}
        return embed_vocabulary(model, self.vocabulary, read_example=self.read_example, **options)


@dataclass(frozen=True)
class ClassSource:
    """The source of the vectors of classes.

    vocabulary: a vocabulary file. embeddings: a file of `clim-eval embed`. templates: of prompts,
    by name, unless there are embeddings. cache: folder of computed embeddings, None for none.

    Raises:
        ValueError: a vocabulary and embeddings.
    """

    vocabulary: Path | None = None
    embeddings: Path | None = None
    templates: str = "vild"
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.vocabulary is not None and self.embeddings is not None:
            raise ValueError("--vocabulary and --class-embeddings contradict: pass one of them")

    def rows(self, model: "RegionModel", names: Sequence[str]) -> Tensor:
        """Return the vectors of K classes, then of M phrases that compete with them and never win.

        Returns:
            (K + M, C), unit rows where they are computed.

        Raises:
            FileNotFoundError, ValueError: a file is missing, damaged or of another text tower, or
                has no vector of a class.
        """
        if self.vocabulary is not None:
            file = VocabularyFile.read(self.vocabulary)
            file.check_names(names)
            found = file.embed(model, self.templates, cache=self.cache)
            places = [found.vocabulary.names.index(name) for name in names]
            return torch.cat([found.embeddings[places], found.rejects])
        if self.embeddings is not None:
            return load_class_embeddings(self.embeddings, names, model=model).to(model.device)
        show = Ranks.of_launcher().is_first
        return embed_with_bar(model, names, self.templates, cache=self.cache, show=show)
