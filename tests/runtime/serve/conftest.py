"""One service for the tests of this folder, on a model whose right output is known by looking."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.serving import Running, serving


@pytest.fixture(scope="session")
def service(colour_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("service"), "--model", colour_model) as running:
        yield running
        assert "Traceback" not in running.log()
        assert "internal error" not in running.log()


@pytest.fixture
def photo(stripes: np.ndarray) -> bytes:
    """PNG of 60x40 pixels: left third red, middle green, right blue."""
    file = io.BytesIO()
    Image.fromarray(stripes).save(file, "PNG")
    return file.getvalue()
