"""Data sets for evaluation and grounding, one module for each kind of annotation."""
