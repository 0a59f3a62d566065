"""Heads on top of a frozen model."""
