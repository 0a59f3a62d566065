"""From an image to a pyramid of maps."""
