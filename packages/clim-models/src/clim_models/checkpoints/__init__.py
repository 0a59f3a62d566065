"""Weights: loaded from every layout, interpolated, and fingerprinted."""
