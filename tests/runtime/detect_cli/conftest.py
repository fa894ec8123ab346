"""Pictures, and cornernet-detect with a model that sees the same three objects in each."""

from __future__ import annotations

import pytest
from cases.detect_cli import noise, save

from cornernet_runtime.cli.detect import main


@pytest.fixture
def pictures(tmp_path):
    """A folder of three pictures."""
    folder = tmp_path / "pictures"
    for name, seed in (("a.png", 1), ("b.png", 2), ("c.jpg", 3)):
        save(folder / name, noise(seed=seed))
    return folder


@pytest.fixture
def detect(planted_model, capsys):
    """Return a function that runs the command in this process: arguments in, (status, output, errors) out."""

    def run(*arguments, model=planted_model):
        status = main([str(model), *map(str, arguments)])
        output, errors = capsys.readouterr()
        return status, output, errors

    return run
