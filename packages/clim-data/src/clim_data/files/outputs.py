"""Checks of a place to write, before the work for it begins."""

from pathlib import Path

from clim_data.files.names import is_image, is_other_image

# Endings of files that a user may expect where a folder is written, next to those of images.
FILE_SUFFIXES = (".json", ".jsonl", ".md", ".tar", ".txt", ".csv")


def check_output_folder(folder: Path, option: str) -> None:
    """Check that an option names a folder to write, which need not exist.

    Raises:
        ValueError: it is a file, or there is nothing yet and the name ends as a file's does.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise ValueError(f"{option} {folder} is a file: name a folder, which is made if needed")
    name = folder.name
    ends_as_image = is_image(name) or is_other_image(name)
    if folder.suffix and (ends_as_image or folder.suffix.lower() in FILE_SUFFIXES):
        raise ValueError(
            f"{option} {folder} names a file, and a folder is written: name it without an ending, "
            f"such as {folder.with_suffix('')}"
        )
