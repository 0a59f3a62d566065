"""Official annotation files, read and checked."""
