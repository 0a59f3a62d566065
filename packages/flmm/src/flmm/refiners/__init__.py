"""From coarse masks to fine ones."""
