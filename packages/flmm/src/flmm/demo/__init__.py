"""A tiny LMM that captions composed scenes, so that grounding can be tried, tested and shown
without any download."""
