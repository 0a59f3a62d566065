"""LMM families and how to make a `FrozenLMM` of a transformers model. One file per family; names
here are the API."""

from flmm.adapters.registry import build_lmm, load_lmm, register_family, supported_families

__all__ = ["build_lmm", "load_lmm", "register_family", "supported_families"]
