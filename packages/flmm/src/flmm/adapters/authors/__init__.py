"""Models in the layout of their authors, made into transformers models."""
