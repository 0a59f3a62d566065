"""From an image and phrases to masks."""
