"""TorchScript archives give the same weights as `torch.jit.load`, and run nothing."""

import pickle
import warnings
import zipfile

import pytest
import torch
from clim_models import load_checkpoint
from clim_models.checkpoints.torchscript import is_torchscript, read_torchscript
from torch import nn

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning"
)


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.turned = nn.Parameter(torch.rand(2, 3).t())  # not contiguous
        self.register_buffer("small", torch.rand(2).half())
        self.register_buffer("number", torch.tensor(7))
        self.mask = torch.ones(2)  # neither parameter nor buffer
        self.sizes = [1, 2]

    def forward(self, x):
        return (self.linear(x) + self.small) * self.mask + x @ self.turned


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.Sequential(Part(), nn.BatchNorm1d(2))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.tied = self.parts[0].linear.weight

    def forward(self, x):
        return self.parts(x) * self.scale


@pytest.mark.parametrize("way", ["script", "trace"])
def test_same_weights_as_torch(tmp_path, way):
    model = Whole().eval()
    made = torch.jit.script(model) if way == "script" else torch.jit.trace(model, torch.rand(2, 3))
    made.save(str(tmp_path / "archive.pt"))
    expected = torch.jit.load(str(tmp_path / "archive.pt")).state_dict()
    assert is_torchscript(tmp_path / "archive.pt")
    found = read_torchscript(tmp_path / "archive.pt")
    assert found.keys() == expected.keys()
    assert "parts.0.mask" not in found
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value)


class Harmful(nn.Module):
    """Writes a file when it is loaded."""

    def __init__(self, path: str):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.path = path

    @torch.jit.export
    def __getstate__(self):
        return (self.weight, self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]):
        self.weight = state[0]
        self.path = state[1]
        self.training = state[2]
        torch.save(state[0], state[1])

    def forward(self, x):
        return x


def test_code_in_an_archive_does_not_run(tmp_path):
    proof = tmp_path / "proof"
    torch.jit.script(Harmful(str(proof))).save(str(tmp_path / "archive.pt"))
    proof.unlink(missing_ok=True)
    assert read_torchscript(tmp_path / "archive.pt") == {}
    with pytest.raises(ValueError, match="no weights"):
        load_checkpoint(nn.Linear(2, 2), tmp_path / "archive.pt")
    assert not proof.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(str(tmp_path / "archive.pt"))
    assert proof.exists()  # the archive would have done it


class Payload:
    def __reduce__(self):
        return print, ("code ran",)


def test_pickles_inside_an_archive_are_refused(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "archive.pt", "w") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(()))
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": Payload()}, protocol=2))
    with pytest.raises(pickle.UnpicklingError, match="print is neither a module nor a tensor"):
        read_torchscript(tmp_path / "archive.pt")
    with pytest.raises(ValueError, match="could run code"):
        load_checkpoint(nn.Linear(2, 2), tmp_path / "archive.pt")
    assert "code ran" not in capsys.readouterr().out


def test_damaged_archive_is_an_error(tmp_path):
    path = tmp_path / "archive.pt"
    torch.jit.script(Whole()).save(str(path))
    with zipfile.ZipFile(path) as full, zipfile.ZipFile(tmp_path / "less.pt", "w") as less:
        for entry in full.infolist():
            if not entry.filename.endswith("/data/0"):
                less.writestr(entry.filename, full.read(entry))
    with pytest.raises(ValueError, match="truncated or damaged"):
        load_checkpoint(nn.Linear(2, 2), tmp_path / "less.pt")
