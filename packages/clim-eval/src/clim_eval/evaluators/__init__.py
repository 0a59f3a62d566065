"""Evaluators: each runs a model over data and returns its metrics."""
