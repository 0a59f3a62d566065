"""The main job on real image-text pairs in minutes."""
