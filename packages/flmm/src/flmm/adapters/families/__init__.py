"""LMM families, one module for each `model_type` of transformers."""
