"""What detectors learn from images without boxes: their tags and their captions."""
