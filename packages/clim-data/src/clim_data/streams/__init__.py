"""Endless, resumable batches for training."""
