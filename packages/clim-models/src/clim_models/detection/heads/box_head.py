"""The head that names and corrects proposals.

Letters: R boxes, C channels of the pyramid, D embedding, K classes.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from clim_models.detection.features.conv import ConvNorm
from clim_models.detection.heads.text_classifier import TextClassifier

# Side of the window that is read of each box.
WINDOW = 7


@dataclass(frozen=True)
class BoxHeadRules:
    """Layers of a box head.

    Attributes:
        width: of the fully connected layers.
        project: whether a linear layer brings the class feature to the embedding. Without it the
            class feature after its ReLU is the embedding itself, so `width` is the embedding's.
        channels: of the convolutions; None is the neck's number.
    """

    width: int
    project: bool
    channels: int | None = None


@dataclass(frozen=True)
class BoxOutputs:
    """The output of the head for each box.

    Attributes:
        features: (R, D), to be compared with class embeddings; of any length.
        deltas: (R, 4), for all classes together.
    """

    features: Tensor
    deltas: Tensor


class BoxHead(nn.Module):
    """Four 3x3 convolutions and two layers for both tasks, then one layer for each.

    Args:
        channels: C.
        classifier: compares features with class embeddings.
        rules: see `BoxHeadRules`.

    Raises:
        ValueError: a width that is not the embedding's, without projection.
    """

    def __init__(self, channels: int, classifier: TextClassifier, rules: BoxHeadRules):
        super().__init__()
        embed_dim = classifier.background.embed_dim
        if not rules.project and rules.width != embed_dim:
            raise ValueError(
                f"width={rules.width} for embeddings of {embed_dim}; without projection they are "
                f"the same: pass width={embed_dim} or project=True"
            )
        inner = rules.channels or channels
        inputs = [channels, inner, inner, inner]
        self.convs = nn.Sequential(*[ConvNorm(size, inner, relu=True) for size in inputs])
        self.shared = nn.Sequential(
            nn.Linear(inner * WINDOW**2, rules.width),
            nn.ReLU(),
            nn.Linear(rules.width, rules.width),
            nn.ReLU(),
        )
        self.class_layer = nn.Sequential(nn.Linear(rules.width, rules.width), nn.ReLU())
        self.box_layer = nn.Sequential(nn.Linear(rules.width, rules.width), nn.ReLU())
        self.project = nn.Linear(rules.width, embed_dim) if rules.project else nn.Identity()
        self.deltas = nn.Linear(rules.width, 4)
        self.classifier = classifier
        self._initialise()

    def _initialise(self) -> None:
        for module in self.convs.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for part in (self.shared, self.class_layer, self.box_layer):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)
        if isinstance(self.project, nn.Linear):
            nn.init.normal_(self.project.weight, std=0.01)
            nn.init.zeros_(self.project.bias)
        nn.init.normal_(self.deltas.weight, std=0.001)
        nn.init.zeros_(self.deltas.bias)

    def forward(self, windows: Tensor) -> BoxOutputs:
        """Read windows of the pyramid: (R, C, 7, 7)."""
        x = self.shared(self.convs(windows).flatten(1))  # (R, width)
        features = self.project(self.class_layer(x))
        return BoxOutputs(features, self.deltas(self.box_layer(x)))
