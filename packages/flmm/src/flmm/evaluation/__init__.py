"""Evaluation of grounding: masks of phrases, and visual chain of thought."""
