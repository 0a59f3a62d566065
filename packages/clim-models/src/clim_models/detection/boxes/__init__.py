"""Boxes as numbers: coding, anchors, matching, sampling and reading maps."""
