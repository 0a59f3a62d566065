"""Texts: tokens of phrases, noun chunks and prompts."""
