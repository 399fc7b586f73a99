"""Inside the process that measures, as far as a process of its own is not needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.colours import colour_spec
from unet_runtime.bench.worker import confusion_matrix
from unet_runtime.core.datasets import Sample
from unet_runtime.core.datasets.oxford_pets import Trimap
from unet_runtime.core.spec import InputSpec, ModelSpec, OutputSpec
from unet_runtime.segmenter import Segmenter

SIZE, MARGIN = 12, 2


class Unpadded:
    """A segmenter whose convolutions cut ``MARGIN`` pixels off each side; its output is the colour it sees."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    prepare = Segmenter.prepare

    def infer(self, images: np.ndarray) -> np.ndarray:
        return images[:, MARGIN:-MARGIN, MARGIN:-MARGIN].astype(np.float32)


@pytest.fixture
def spec() -> ModelSpec:
    inner = SIZE - 2 * MARGIN
    return replace(colour_spec(SIZE), input=InputSpec(SIZE, SIZE, margin=MARGIN), output=OutputSpec(inner, inner))


def test_the_trimap_is_cut_as_the_output_of_unpadded_convolutions_is(spec: ModelSpec, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, (SIZE - 2 * MARGIN,) * 2)
    Image.fromarray((np.eye(3)[ids] * 255).astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray((ids + 1).astype(np.uint8)).save(tmp_path / "trimap.png")
    (tmp_path / "bad.png").write_text("text")
    samples = [Sample(name, tmp_path / name, Trimap(tmp_path / "trimap.png")) for name in ("a.png", "bad.png")]
    segmenter: Any = Unpadded(spec)
    matrix, problems = confusion_matrix(segmenter, samples)
    counts = np.bincount(ids.ravel(), minlength=3)
    assert matrix == np.diag(counts).tolist()
    assert len(problems) == 1
    assert "bad.png: not an image" in problems[0]
