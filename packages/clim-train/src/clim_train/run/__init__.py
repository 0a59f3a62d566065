"""A run: its folder, checkpoints, metrics, and how it stops, fails and continues."""
