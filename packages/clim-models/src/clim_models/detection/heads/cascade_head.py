"""One stage of a cascade of box heads.

Letters: R boxes, C channels of the pyramid, D width.
"""

import math

from torch import Tensor, nn

from clim_models.detection.heads.sigmoid import SigmoidClassifier, SigmoidRules

WINDOW = 7


class CascadeHead(nn.Module):
    """Two layers for both tasks, then a text classifier, and two layers for the deltas.

    Args:
        channels: C.
        width: D.
        embed_dim: of the class embeddings.
        classifier: temperature and bias.

    Source: Cascade R-CNN, arXiv 1712.00726, with the classifier of Detic, arXiv 2201.02605.
    """

    def __init__(self, channels: int, width: int, embed_dim: int, classifier: SigmoidRules):
        super().__init__()
        inputs = channels * WINDOW**2
        self.shared = nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.classifier = SigmoidClassifier(width, embed_dim, classifier)
        self.deltas = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))
        for part in (self.shared, self.deltas):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.001)
                    nn.init.zeros_(module.bias)
        for layer in (self.shared[0], self.shared[2]):
            assert isinstance(layer, nn.Linear)
            bound = math.sqrt(3 / layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, windows: Tensor) -> Tensor:
        """Turn windows of the pyramid into box features: (R, C, 7, 7) -> (R, D)."""
        found: Tensor = self.shared(windows.flatten(1))
        return found
