"""Features of the frozen models, stored on the disk: later epochs and runs skip the LMM and SAM's
image encoder.

Features are the attention maps of the phrases, the hidden states of their tokens, and SAM's
embedding of the image. They are large: with LLaVA-1.5 2.4 MB per phrase and 4 MB per image, before
bfloat16 halves them. Nothing is rounded: maps are stored in 16 bits only if that changes no value.
"""

import hashlib
import json
import logging
import os
import secrets
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from clim_data import GroundingSample
from clim_data.files import remove_stale_drafts, write_json, write_whole
from clim_models.checkpoints import checksum
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flmm.adapters.features import PhraseFeatures
from flmm.adapters.frames import ImageFrame
from flmm.adapters.layout import ImageLayout
from flmm.grounded import GroundedLMM
from flmm.refiners.embedding import ImageEmbedding
from flmm.samples import FrozenFeatures, GroundingItem, text_stamp
from flmm.version import __version__

logger = logging.getLogger(__name__)

SHARD_BYTES = 256 << 20
ENTRIES = "entries"
FORMAT = 2
"""Features in another format are in another subfolder. Since 2, each entry has a checksum."""

TENSORS = ("maps", "states", "embedding")
DETAIL = "detail{}"
"""Names of the tensors of an entry; it has as many details as its refiner reads."""

Place = tuple[Path, int, dict]
"""Shard, number in it, and entry of the features of a sample."""


def frozen_facts(
    model: GroundedLMM, *, data: Mapping[str, str], requests: Mapping[str, str]
) -> dict[str, Any]:
    """Collect everything that features depend on: weights, precision, prompts, processing and data.

    All weights are read once.

    Args:
        data: name -> stamp of each data set.
        requests: name -> question to the LMM.
    """
    import transformers

    lmm, encoder = model.lmm, model.sam.frozen_encoder()
    words = "" if lmm.tokenizer is None else json.dumps(sorted(lmm.tokenizer.get_vocab().items()))
    return {
        "lmm": _weights(lmm.model),
        "lmm_config": hashlib.sha256(
            json.dumps(lmm.config.to_dict(), default=str).encode()
        ).hexdigest()[:16],
        "pixels": repr(lmm.family.prepare),
        "vocabulary": hashlib.sha256(words.encode()).hexdigest()[:16],
        "prompts": {name: lmm.family.style.prompt(request) for name, request in requests.items()},
        "merge": model.merge,
        "sam": _weights(encoder),
        "sam_px": model.sam.square.edge,
        "refiner": model.sam.kind,
        "data": dict(data),
        "versions": {
            "flmm": __version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        },
    }


def _weights(module: torch.nn.Module) -> dict[str, str]:
    state = {name: value.detach().cpu() for name, value in module.state_dict().items()}
    kinds = sorted({str(value.dtype) for value in state.values() if value.is_floating_point()})
    return {"checksum": checksum(state), "dtype": " ".join(kinds)}


class FeatureCache:
    """Features of samples in safetensors shards below `folder`, in a subfolder for each set of
    facts.

    Other facts (weights, precision, prompts, data) lead to another subfolder, so nothing outdated
    is ever read. A shard is written to a draft and moved, under a name that no other process
    chooses. Ranks write their own shards and read all of them, those of other ranks from the next
    epoch on.

    Each entry has a checksum, which is compared when it is read. A shard with an entry that differs
    (a disk that was full, a loss of power) is named in a warning and removed: its samples are
    computed and stored anew.

    Args:
        folder: of the caches of any number of runs.
        facts: from `frozen_facts`.
        rank: of this process.
        max_bytes: this rank writes no more than this; None: no limit.
        shard_bytes: features are collected in memory up to this size.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        facts: Mapping[str, Any],
        *,
        rank: int = 0,
        max_bytes: float | None = None,
        shard_bytes: int = SHARD_BYTES,
    ):
        facts = {"format": FORMAT, **facts}
        stamp = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = Path(folder) / stamp
        self.rank = rank
        self.max_bytes = max_bytes
        self.shard_bytes = shard_bytes

        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale_drafts(self.folder)
        if not (self.folder / "facts.json").exists():
            write_json(self.folder / "facts.json", facts, indent=2)

        self._places: dict[str, Place] = {}
        self._scanned: set[Path] = set()
        self._pending: list[tuple[dict, dict[str, Tensor]]] = []
        self._pending_keys: set[str] = set()
        self._pending_bytes = 0
        self.written_bytes = sum(path.stat().st_size for path in self._shards(f"{rank:04d}"))
        self.refresh()

    def __len__(self) -> int:
        """Return the number of samples that can be found."""
        return len(self._places)

    def refresh(self) -> None:
        """Write the pending features, and read which features the shards of all ranks have."""
        self.flush()
        shards = self._shards("*")

        # Another process may have removed a damaged shard.
        self._scanned &= set(shards)
        self._places = {
            key: place for key, place in self._places.items() if place[0] in self._scanned
        }
        for path in shards:
            if path not in self._scanned:
                self._scan(path)

    def find(self, key: str, sample: GroundingSample) -> GroundingItem | None:
        """Return the item of a sample with its features, or None; the image is not read.

        Raises BrokenSample when its masks cannot be read.
        """
        place = self._places.get(key)
        if place is None or place[2]["text"] != text_stamp(sample):
            return None
        tensors = self._read(place)
        if tensors is None:
            return None

        entry = place[2]
        *sizes, top, left = entry["frame"]
        image, content, padded = ((height, width) for height, width in sizes)
        frame = ImageFrame(image, content, padded, top, left)
        layout = ImageLayout((), entry["tokens"], frame if entry["padded"] else None)
        masks = frame.resize_masks(torch.from_numpy(sample.mask_source.masks(frame.image_size)))
        phrases = PhraseFeatures(
            tensors["maps"].float(), tensors["states"], tuple(entry["lengths"]), layout
        )
        details = tuple(tensors[DETAIL.format(i)] for i in range(entry.get("details", 0)))
        embedding = ImageEmbedding(tensors["embedding"], frame.image_size, details)
        kept = FrozenFeatures(phrases, embedding)
        return GroundingItem(key, masks, text=entry["text"], kept=kept)

    def keep(self, item: GroundingItem, features: FrozenFeatures) -> None:
        """Take the features of an item, unless they are stored already or there is no room.

        They are written once there are enough for a shard.
        """
        if item.key in self._pending_keys:
            return
        place = self._places.get(item.key)
        if place is not None and place[0].exists():  # a loading process may have removed it
            return
        if item.sample is None:
            raise ValueError(f"{item.key} was made of cached features: keep new ones only")

        phrases, frame = features.phrases, item.sample.image.frame
        tensors = {
            "maps": _narrow(phrases.maps, phrases.states.dtype),
            "states": phrases.states,
            "embedding": features.embedding.features,
        }
        details = features.embedding.details
        tensors |= {DETAIL.format(i): detail for i, detail in enumerate(details)}
        size = sum(value.numel() * value.element_size() for value in tensors.values())
        if (
            self.max_bytes is not None
            and self.written_bytes + self._pending_bytes + size > self.max_bytes
        ):
            return

        entry = {
            "key": item.key,
            "text": item.text,
            "lengths": list(phrases.lengths),
            "tokens": phrases.layout.tokens,
            "padded": phrases.layout.padding is not None,
            "details": len(details),
            "frame": [
                frame.image_size,
                frame.content_size,
                frame.padded_size,
                frame.top,
                frame.left,
            ],
        }
        values = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        entry["checksum"] = _entry_checksum(entry, values)

        self._pending.append((entry, values))
        self._pending_keys.add(item.key)
        self._pending_bytes += size
        if self._pending_bytes >= self.shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write the pending features as one shard."""
        if not self._pending:
            return

        # The random part keeps runs apart that share a cache.
        name = f"features-{self.rank:04d}-{os.getpid()}-{secrets.token_hex(4)}.safetensors"
        path = self.folder / name
        tensors = {
            f"{i}.{name}": value
            for i, (_, values) in enumerate(self._pending)
            for name, value in values.items()
        }
        entries = json.dumps([entry for entry, _ in self._pending])
        # No flush to the disk, which takes seconds: checksums find features that did not arrive
        # there.
        with write_whole(path, sync=False) as draft:
            save_file(tensors, draft, metadata={ENTRIES: entries})

        self.written_bytes += self._pending_bytes
        self._pending, self._pending_bytes = [], 0
        self._pending_keys = set()
        self._scan(path)

    def _scan(self, path: Path) -> None:
        self._scanned.add(path)
        try:
            with safe_open(path, framework="pt") as file:
                entries = json.loads(file.metadata()[ENTRIES])
            self._places.update(
                {entry["key"]: (path, number, entry) for number, entry in enumerate(entries)}
            )
        except OSError as fault:
            logger.warning("%s cannot be read (%s): its samples are computed again", path, fault)
        except (SafetensorError, KeyError, TypeError, ValueError) as fault:
            self._remove(path, fault)

    def _read(self, place: Place) -> dict[str, Tensor] | None:
        """Return the tensors of an entry, None where they are missing or damaged."""
        path, number, entry = place
        names = [*TENSORS, *(DETAIL.format(i) for i in range(entry.get("details", 0)))]
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(f"{number}.{name}") for name in names}
        except FileNotFoundError:  # removed since the last look
            return None
        except OSError as fault:
            logger.warning("%s cannot be read (%s): its samples are computed again", path, fault)
            return None
        except SafetensorError as fault:
            self._remove(path, fault)
            return None

        if entry.get("checksum") != _entry_checksum(entry, tensors):
            self._remove(path, f"the features of {entry['key']} differ from their checksum")
            return None
        return tensors

    def _remove(self, path: Path, fault: object) -> None:
        """Remove a damaged shard. Its places stay until `refresh`, and lead to no file."""
        logger.warning(
            "%s is damaged (%s) and removed: its samples are computed again", path, fault
        )
        with suppress(OSError):
            path.unlink()

    def _shards(self, rank: str) -> list[Path]:
        return sorted(self.folder.glob(f"features-{rank}-*.safetensors"))


def _entry_checksum(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the checksum over an entry without its own, and over its tensors."""
    facts = {name: value for name, value in entry.items() if name != "checksum"}
    crc = zlib.crc32(json.dumps(facts, sort_keys=True).encode())
    return f"{crc:08x}{checksum(tensors)}"


def _narrow(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the maps in the LMM's dtype if that is exact."""
    small = maps.to(dtype)
    return small if torch.equal(small.float(), maps) else maps
