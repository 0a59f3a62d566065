"""Requests: the features that a RegionModel computes from one forward of its image tower.

`RegionModel.encode(images, requests)` answers any number of them together:

    features = model.encode(images, [ImageFeature(), Pooled("boxes")], boxes=boxes)
    features[Pooled("boxes")]  # (R, C)

Letters: B images, h w positions of the feature map, R regions of all images, C embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from torch import Tensor

Regions = Literal["boxes", "masks"]


class Readout(StrEnum):
    """The way to read the last layer of a tower at each position of the map.

    VALUE_RESIDUAL runs the layer without mixing between positions: value path, residual and MLP
    (the papers' path). VALUE stops after the value and output projections (MaskCLIP, arXiv
    2112.01071).

    The others mix similar positions, for a CLIP that was never trained on regions. Transformer
    blocks have them, attention pools and CNNs do not. SCLIP (arXiv 2312.01597) adds attention of
    queries to queries and of keys to keys, and runs residual and MLP. CLEARCLIP (arXiv 2407.12442)
    attends from queries to queries, without residual and MLP. NACLIP (arXiv 2404.08181) attends
    from keys to keys and favours neighbours, without residual and MLP.
    """

    VALUE_RESIDUAL = "value_residual"
    VALUE = "value"
    SCLIP = "sclip"
    CLEARCLIP = "clearclip"
    NACLIP = "naclip"

    @property
    def mixes(self) -> bool:
        """Whether positions mix, which needs a transformer block as the last layer."""
        return self not in (Readout.VALUE_RESIDUAL, Readout.VALUE)


# torch.compile traces a look-up in a dict, but not the members of an enum (torch 2.11).
READOUTS: dict[str, Readout] = {member.value: member for member in Readout}


def as_readout(value: str) -> Readout:
    """Return the readout of a name; a `Readout` passes through.

    Raises:
        ValueError: an unknown readout.
    """
    if value not in READOUTS:
        raise ValueError(f"readout={value!r}; legal values are {', '.join(READOUTS)}")
    return READOUTS[value]


def _check_regions(regions: str) -> None:
    if regions not in get_args(Regions):
        raise ValueError(f"regions={regions!r}; legal values are 'boxes' and 'masks'")


@dataclass(frozen=True)
class ImageFeature:
    """Feature of the whole image, as `encode_image` gives it: (B, C)."""


@dataclass(frozen=True)
class Dense:
    """Features of all positions, as `encode_dense` gives them: (B, C, h, w).

    Raises:
        ValueError: an unknown readout.
    """

    readout: Readout = Readout.VALUE_RESIDUAL

    def __post_init__(self) -> None:
        object.__setattr__(self, "readout", as_readout(self.readout))


@dataclass(frozen=True)
class Pooled:
    """Average of the unit-length map inside each box or mask: (R, C).

    Boxes are pooled by RoIAlign (1x1, aligned), masks by their mean.

    Raises:
        ValueError: unknown regions or an unknown readout.
    """

    regions: Regions
    readout: Readout = Readout.VALUE_RESIDUAL

    def __post_init__(self) -> None:
        _check_regions(self.regions)
        object.__setattr__(self, "readout", as_readout(self.readout))


@dataclass(frozen=True)
class Attended:
    """Image feature that attends inside each box or mask only: (R, C).

    Raises:
        ValueError: unknown regions.
    """

    regions: Regions

    def __post_init__(self) -> None:
        _check_regions(self.regions)


Request = ImageFeature | Dense | Pooled | Attended
# For `isinstance`: torch.compile of torch 2.10 traces tuples of classes, and no unions.
REQUEST_CLASSES = (ImageFeature, Dense, Pooled, Attended)
OF_MAPS = (Dense, Pooled)
OF_REGIONS = (Pooled, Attended)

# Names for command lines, reports and `encode_regions`. Nothing else turns names into requests.
REQUESTS: dict[str, Request] = {
    "image": ImageFeature(),
    "dense": Dense(),
    "dense_value": Dense(Readout.VALUE),
    "dense_sclip": Dense(Readout.SCLIP),
    "dense_clearclip": Dense(Readout.CLEARCLIP),
    "dense_naclip": Dense(Readout.NACLIP),
    "boxes": Pooled("boxes"),
    "boxes_value": Pooled("boxes", Readout.VALUE),
    "boxes_sclip": Pooled("boxes", Readout.SCLIP),
    "boxes_clearclip": Pooled("boxes", Readout.CLEARCLIP),
    "boxes_naclip": Pooled("boxes", Readout.NACLIP),
    "boxes_attention": Attended("boxes"),
    "masks": Pooled("masks"),
    "masks_value": Pooled("masks", Readout.VALUE),
    "masks_sclip": Pooled("masks", Readout.SCLIP),
    "masks_clearclip": Pooled("masks", Readout.CLEARCLIP),
    "masks_naclip": Pooled("masks", Readout.NACLIP),
    "masks_attention": Attended("masks"),
}


def request_named(name: str) -> Request:
    """Return the request that a name of `REQUESTS` stands for.

    Raises:
        ValueError: an unknown name; the message lists all.
    """
    if name not in REQUESTS:
        raise ValueError(f"output {name!r} is unknown; legal values are {', '.join(REQUESTS)}")
    return REQUESTS[name]


def region_request(
    regions: Regions, mode: str, readout: str | None, *, pooled_mode: str
) -> Pooled | Attended:
    """Translate the arguments of `encode_boxes` and `encode_masks`.

    Args:
        mode: `pooled_mode` ("align" for boxes, "mean" for masks) or "attention".
        readout: of the pooled map; None is the papers' readout.

    Raises:
        ValueError: an unknown mode or readout, or a readout that mode "attention" would ignore.
    """
    if mode not in (pooled_mode, "attention"):
        raise ValueError(f"mode={mode!r}; legal values are {pooled_mode!r} and 'attention'")
    if mode == pooled_mode:
        return Pooled(regions, Readout.VALUE_RESIDUAL if readout is None else as_readout(readout))

    if readout is not None:
        as_readout(readout)
        raise ValueError(
            f"readout={readout!r} has no effect with mode='attention', which reads no map; "
            f"leave readout out, or pass mode={pooled_mode!r}"
        )
    return Attended(regions)


def check_requests(
    requests: Sequence[Request],
    boxes: Sequence[Tensor] | None,
    masks: Sequence[Tensor] | None,
) -> None:
    """Reject values that are not requests, and requests whose regions were not passed.

    Raises:
        ValueError: see above.
    """
    given = {"boxes": boxes, "masks": masks}
    for request in requests:
        if not isinstance(request, REQUEST_CLASSES):
            raise ValueError(
                f"{request!r} is no request; pass ImageFeature(), Dense(), Pooled(...) or "
                "Attended(...), or use encode_regions(outputs=...) for names"
            )
        if isinstance(request, OF_REGIONS) and given[request.regions] is None:
            kind = request.regions
            raise ValueError(
                f"{request!r} needs {kind}; pass {kind}=[...] with one tensor per image"
            )
