"""A model and data sets whose right answers are known, shared by the tests and their worker
processes."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 7
CHANNELS = 16
SIDE, STRIDE = 32, 8


@dataclass
class Sample:
    image: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    areas: torch.Tensor
    is_thing: torch.Tensor
    masks: torch.Tensor
    crops: torch.Tensor | None
    image_id: int


class ToyModel(nn.Module):
    """The interface of a RegionModel over one random projection of pixels; counts its forward
    passes."""

    stride = STRIDE
    image_size = (16, 16)

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(3 * STRIDE * STRIDE, CHANNELS, generator=generator))
        self.words = nn.Parameter(torch.randn(128, CHANNELS, generator=generator))
        self.forwards = 0
        self.images_seen = 0

    def normalize_pixels(self, pixels):
        assert pixels.dtype == torch.uint8
        return pixels.float() / 255 - 0.5

    def grid_size(self, height, width):
        return height // STRIDE, width // STRIDE

    def encode_dense(self, images):
        self.forwards += 1
        self.images_seen += len(images)
        patches = F.unfold(images, STRIDE, stride=STRIDE)  # (B, 3ss, hw)
        rows = F.normalize((patches.transpose(1, 2) @ self.weight), dim=-1)
        side = images.shape[-1] // STRIDE
        return rows.transpose(1, 2).unflatten(2, (-1, side))

    def encode_image(self, images, normalize=True):
        return F.normalize(self.encode_dense(images).flatten(2).mean(-1), dim=-1)

    def encode(self, images, requests, *, boxes=None, masks=None):
        dense = self.encode_dense(images)
        side = dense.shape[-1]
        found = {}
        for request in requests:
            rows = []
            if request.regions == "boxes":  # the feature under each box's centre
                for i, corners in enumerate(boxes):
                    centres = (corners[:, :2] + corners[:, 2:]) / 2
                    for x, y in centres.clamp(0, 0.999).tolist():
                        rows.append(dense[i][:, int(y * side), int(x * side)])
            else:
                for i, part in enumerate(masks):
                    rows += [(dense[i] * mask).sum((1, 2)) for mask in part]
            found[request] = F.normalize(torch.stack(rows), dim=-1)
        return found

    def tokenizer(self, texts):
        return torch.stack(
            [torch.bincount(torch.tensor([ord(c) for c in t]), minlength=128) for t in texts]
        )

    def encode_text(self, tokens, normalize=True):
        return F.normalize(tokens.float() @ self.words, dim=-1)


class Regions(torch.utils.data.Dataset):
    """``count`` images with 0 to 4 random regions each."""

    def __init__(self, count, crops=True):
        self.count, self.crops = count, crops

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(100 + index)
        n = index % 5

        def pixels(*shape):
            return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

        corners = torch.rand(n, 2, 2, generator=generator).sort(dim=1).values
        labels = torch.randint(0, CLASSES, (n,), generator=generator)
        masks = torch.rand(n, SIDE // STRIDE, SIDE // STRIDE, generator=generator) > 0.5
        return Sample(
            image=pixels(3, SIDE, SIDE),
            boxes=corners.reshape(n, 4),
            labels=labels,
            areas=torch.rand(n, generator=generator) * 1000,
            is_thing=labels < 4,
            masks=masks.to(torch.uint8),
            crops=pixels(n, 3, 16, 16) if self.crops else None,
            image_id=1000 + index,
        )


class Captioned(torch.utils.data.Dataset):
    """``count`` images with 1 to 3 captions each; some captions belong to two images."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(500 + index)
        image = torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        captions = [
            f"picture {index * 37 % 101} {letter * (index + 1)}"
            for letter in "abc"[: 1 + index % 3]
        ]
        if index % 4 == 0:
            captions.append(f"shared {index // 8}")
        return image, captions, 7000 - index


class Labelled(torch.utils.data.Dataset):
    """``count`` images with a class each, as torchvision's data sets give them: (image, label)."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(900 + index)
        return torch.randint(
            0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8
        ), index % CLASSES


def class_rows():
    return torch.randn(CLASSES, CHANNELS, generator=torch.Generator().manual_seed(8))
