"""Detectors on frozen towers side by side: before CLIM, after it, and after its control."""
