import re
from pathlib import Path

from clim_data.commands.main import main

README = Path(__file__).parents[2] / "packages" / "clim-data" / "README.md"


def test_first_example_runs_as_printed(tmp_path, monkeypatch, images, capsys):
    text = README.read_text()
    command = re.search(r"^clim-data (pack folder .*)$", text, re.MULTILINE).group(1).split()
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(32):
        (tmp_path / "photos" / f"{i}.jpg").write_bytes(images.encoded(images.pixels(i, 40, 50)))
        (tmp_path / "photos" / f"{i}.txt").write_text(f"picture {i}\n")
    assert main([*command, "--workers", "1"]) == 0
    capsys.readouterr()
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    expected = re.search(r"# (\(3, 3, 1024.*)$", example, re.MULTILINE).group(1)
    assert (
        printed.replace("torch.Size(", "").replace("])", ")").replace("[", "(").startswith(expected)
    )
    assert printed.strip().endswith("nothing skipped")
