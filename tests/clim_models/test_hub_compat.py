"""A hub that cannot be reached: no tries, no waiting, one message."""

import socket

import pytest
from clim_models import create_model, hub_compat
from huggingface_hub import constants
from huggingface_hub.utils._http import http_backoff


@pytest.fixture
def no_network(monkeypatch):
    """A machine whose every connection fails; returns what was asked for."""
    asked = []

    def refuse(place, timeout=None):
        asked.append(place)
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(hub_compat, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_compat.hub_answers.cache_clear()
    yield asked
    hub_compat.hub_answers.cache_clear()


def test_the_hub_is_asked_once_and_then_left_alone(no_network, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for _ in range(2):
        fix = r"no connection to the hub.*hf download timm/vit_base_patch32_clip_224\.openai"
        with pytest.raises(FileNotFoundError, match=fix) as caught:
            create_model("ViT-B-32-quickgelu", "openai")
        assert "\n" not in str(caught.value)
    assert no_network == [("huggingface.co", 443)]
    assert not caplog.records
    assert constants.HF_HUB_OFFLINE is False


def test_a_text_tower_that_is_not_in_the_cache_is_named(no_network, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="files that xlm-roberta-base-ViT-B-32 needs"):
        create_model("xlm-roberta-base-ViT-B-32", pretrained="none")


def test_requests_within_the_context_are_refused_at_once(no_network):
    with hub_compat.cache_alone_without_hub(), pytest.raises(Exception, match="offline") as caught:
        http_backoff("HEAD", "https://huggingface.co/a/resolve/main/b")
    assert hub_compat.is_not_in_cache(caught.value)


def test_behind_a_proxy_the_name_need_not_resolve(no_network, monkeypatch):
    monkeypatch.setattr(hub_compat, "getproxies", lambda: {"https": "http://proxy:3128"})
    with hub_compat.cache_alone_without_hub():
        assert constants.HF_HUB_OFFLINE is False
    assert no_network == []
