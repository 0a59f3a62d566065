"""Pixels, boxes and masks: decoding and geometry."""
