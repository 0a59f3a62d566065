"""The example of the README that needs nothing else runs as it is printed."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "packages" / "clim-train" / "README.md"


def test_learning_rates_are_those_that_are_printed(capsys):
    code = re.search(
        r"```python\n(from clim_train import OptimConfig.*?)```", README.read_text(), re.S
    )[1]
    exec(compile(code, "README", "exec"), {})
    assert capsys.readouterr().out.strip() == re.search(r"# (1e-07.*)$", code, re.M)[1]
