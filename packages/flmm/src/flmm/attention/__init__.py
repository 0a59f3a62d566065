"""Attention of words to the image: its rows, and their capture from a running LMM."""
