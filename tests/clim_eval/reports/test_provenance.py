from importlib import metadata

import clim_eval
import pytest
import torch
from clim_eval.reports.provenance import data_fingerprint, package_versions, weights_fingerprint
from torch import nn


def test_fingerprint_follows_content_and_counts_not_the_folder(tmp_path):
    for folder, content in (("a", "{}"), ("b", "{}"), ("c", "[]")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "captions.json").write_text(content)
    a, b, c = (data_fingerprint([tmp_path / f / "captions.json"], {"images": 3}) for f in "abc")
    assert a == b
    assert a["fingerprint"] != c["fingerprint"]
    assert (
        a["fingerprint"]
        != data_fingerprint([tmp_path / "a" / "captions.json"], {"images": 4})["fingerprint"]
    )
    with pytest.raises(FileNotFoundError, match="annotation file"):
        data_fingerprint([tmp_path / "none.json"], {})


def test_weights_fingerprint_sees_one_changed_weight():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = weights_fingerprint(model)
    assert weights_fingerprint(model) == before
    with torch.no_grad():
        model[0].bias[1] += 1e-6
    assert weights_fingerprint(model) != before


def test_versions_name_what_is_installed():
    versions = package_versions()
    assert {"python", "torch", "clim-eval", "device"} <= versions.keys()


def test_packages_that_run_from_their_source_folders_have_a_version_too(monkeypatch):
    def no_metadata(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", no_metadata)
    versions = package_versions()
    assert versions["clim-eval"] == clim_eval.__version__
    assert "torch" not in versions
