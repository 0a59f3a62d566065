"""The options of a run as frozen dataclasses, their checks, and their JSON files."""
