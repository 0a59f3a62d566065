"""A folder to write: neither a file nor the name of one."""

import pytest
from clim_data.files import check_output_folder


@pytest.mark.parametrize("name", ["found.png", "found.JPG", "found.bmp", "report.json", "a.tar"])
def test_a_name_of_a_file_is_refused_unless_it_is_a_folder(tmp_path, name):
    folder = tmp_path / name
    with pytest.raises(ValueError, match=r"--out .* without an ending, such as .*(found|report|a)"):
        check_output_folder(folder, "--out")
    folder.mkdir()
    check_output_folder(folder, "--out")


def test_a_file_is_refused_and_other_names_are_not(tmp_path):
    (tmp_path / "notes").touch()
    with pytest.raises(ValueError, match=r"--out .*notes is a file: name a folder"):
        check_output_folder(tmp_path / "notes", "--out")
    for name in ("found", "png", "v1.2", "photos of 3.5.2026"):
        check_output_folder(tmp_path / name, "--out")
