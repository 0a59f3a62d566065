"""Refinement by SAM: its decoder, prompts and weights."""
