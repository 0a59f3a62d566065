"""Pointing and naming: find a scene's words, and name its boxes with them.

Letters: B scenes, W words of a scene, n boxes of a scene, C channels, h w positions of a map.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from clim_models import Attended, Dense, Pooled, Request
from torch import Tensor

from clim_eval.evaluators.pixels import RegionEncoder
from clim_eval.evaluators.region_pass import LeftOut, PassFeatures, collect_in_one_pass
from clim_eval.evaluators.sharing import EvaluationLoading, LoadingKeywords, choose_loading
from clim_eval.metrics.words import naming_hits, pointing_chance, pointing_hits


@dataclass(frozen=True)
class SceneWords:
    """The answers for one scene of W words and n boxes.

    Attributes:
        words: (W,) labels of the words.
        points: (W,) bool, whether the peak lies in a box of the word. chance: (W,), of a random
            peak.
        labels: (n,) labels of the boxes. names: feature -> (n,) bool, whether the box got its word.
    """

    words: np.ndarray
    points: np.ndarray
    chance: np.ndarray
    labels: np.ndarray
    names: dict[str, np.ndarray]


class WordsInScenes:
    """Pointing and naming among the words of each scene, from one pass of the image tower.

    The words of a scene are the classes of its annotated boxes. Pointing: the peak of the word's
    similarity map lies in one of its boxes. Naming: of the scene's words, the box is most similar
    to its own.

    Args:
        model: RegionModel.
        class_embeddings: (K, C), one row per label of the data; normalised here.
        attention: also name boxes by the class token restricted to the box.
        crops: also name boxes by their crops, one more image per box. The data must bring crops.
        loading: batch size, workers and progress bar.
        keywords: the fields of `loading` one by one.

    With a torch.distributed process group every rank calls `run`; each evaluates its own part and
    all return the same result.
    """

    title = "words"

    def __init__(
        self,
        model: RegionEncoder,
        class_embeddings: Tensor,
        *,
        attention: bool = True,
        crops: bool = False,
        loading: EvaluationLoading | None = None,
        **keywords: Unpack[LoadingKeywords],
    ):
        self.model = model
        self.class_embeddings = F.normalize(class_embeddings.float(), dim=-1)  # (K, C)
        self._box_requests: dict[str, Request] = {"boxes": Pooled("boxes")}
        if attention:
            self._box_requests["boxes_attention"] = Attended("boxes")
        self.requests: dict[str, Request] = {"dense": Dense(), **self._box_requests}
        self.crops = crops
        self.loading = choose_loading(loading, keywords)

    def run(self, data: Any) -> dict[str, float]:
        """Return the fractions of `summarize` for a dataset of RegionSample.

        Raises:
            ValueError: no scene has a box.
        """
        return self.summarize(self.collect(data))

    def summarize(
        self, scenes: Sequence[SceneWords], labels: Collection[int] | None = None
    ) -> dict[str, float]:
        """Return "pointing", "naming.boxes", "naming.boxes_attention", "naming.crops" and what
        chance would reach, "pointing.chance" and "naming.chance"; fractions in [0, 1].

        Args:
            labels: count words and boxes of these classes only; the choices stay the same.

        Raises:
            ValueError: there is no such box.
        """
        chosen = [_with_labels(scene, labels) for scene in scenes]
        boxes = sum(len(scene.labels) for scene in chosen)
        if boxes == 0:
            raise ValueError("no scene has a box that counts: check that the data have boxes")

        # A box is named among all words of its scene.
        choices = [
            np.full(len(part.labels), len(scene.words))
            for scene, part in zip(scenes, chosen, strict=True)
        ]
        found = {
            "pointing": float(np.concatenate([scene.points for scene in chosen]).mean()),
            "pointing.chance": float(np.concatenate([scene.chance for scene in chosen]).mean()),
            "naming.chance": float((1 / np.concatenate(choices)).mean()),
        }
        for name in chosen[0].names:
            hits = np.concatenate([scene.names[name] for scene in chosen])
            found[f"naming.{name}"] = float(hits.mean())
        return found

    def collect(self, data: Any) -> list[SceneWords]:
        """Answer both questions for every scene with a box, in the order of the data set."""
        (scenes,) = collect_in_one_pass(data, [self])
        return scenes

    def answer(self, samples: Sequence[Any], features: PassFeatures) -> list[SceneWords]:
        """Answer for each scene, see `collect_in_one_pass`."""
        dense = features.of[Dense()].float().cpu()  # (B, C, h, w)
        of_boxes = {name: features.of[request] for name, request in self._box_requests.items()}
        if self.crops:
            assert features.crops is not None
            of_boxes["crops"] = features.crops

        sizes = [len(sample.labels) for sample in samples]
        parts = {name: rows.float().cpu().split(sizes) for name, rows in of_boxes.items()}
        found = []
        for number, sample in enumerate(samples):
            rows = {name: split[number] for name, split in parts.items()}
            found.append(self._answer_scene(dense[number], rows, sample))
        return found

    def finish(
        self, data: Any, answers: list[SceneWords], left_out: list[LeftOut]
    ) -> list[SceneWords]:
        """Return the answers as they are, see `collect_in_one_pass`."""
        return answers

    def _answer_scene(self, dense: Tensor, rows: dict[str, Tensor], sample: Any) -> SceneWords:
        """Answer for one scene: dense (C, h, w), rows of its boxes by feature."""
        labels, words = torch.unique(sample.labels, return_inverse=True)
        texts = self.class_embeddings.cpu()[labels]  # (W, C)
        maps = torch.einsum("wc,cij->wij", texts, dense)
        return SceneWords(
            words=labels.numpy(),
            points=pointing_hits(maps, sample.boxes, words).numpy(),
            chance=pointing_chance(maps, sample.boxes, words).numpy(),
            labels=sample.labels.numpy(),
            names={
                name: naming_hits(features, texts, words).numpy() for name, features in rows.items()
            },
        )


def _with_labels(scene: SceneWords, labels: Collection[int] | None) -> SceneWords:
    """Return the words and boxes of some classes."""
    if labels is None:
        return scene

    wanted = np.asarray(list(labels))
    words, boxes = np.isin(scene.words, wanted), np.isin(scene.labels, wanted)
    return SceneWords(
        words=scene.words[words],
        points=scene.points[words],
        chance=scene.chance[words],
        labels=scene.labels[boxes],
        names={name: hits[boxes] for name, hits in scene.names.items()},
    )
