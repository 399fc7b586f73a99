"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY

SOURCES = REPOSITORY / "runtime"
WITH_EXAMPLES = [path for path in sorted(SOURCES.rglob("unet_runtime/**/*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples(path: Path) -> None:
    parts = path.relative_to(SOURCES).with_suffix("").parts
    module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    failed, tried = doctest.testmod(module, verbose=False)
    assert failed == 0
    assert tried
