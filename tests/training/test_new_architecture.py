"""A new architecture is one file and one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unet_training import models
from unet_training.build import (
    build_model,
    build_training_model,
    compile_model,
    input_spec,
    make_objective,
    make_optimizer,
    model_sha256,
)
from unet_training.recipes import PRESETS

FILE = """
from unet_training.models.blocks import architecture, conv


@architecture("dummy", filters=2, depth=1, enlarge=2)
def build(x, filters, depth):
    return conv(x, filters, "down", strides=2)
"""


@pytest.fixture
def dummy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dummy.py").write_text(FILE)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    monkeypatch.setitem(models.ARCHITECTURES, "dummy", "dummy:build")


@pytest.mark.usefixtures("dummy")
def test_a_new_architecture_is_built_and_trained() -> None:
    recipe = replace(PRESETS["demo"], architecture="dummy", filters=4, size=16, optimizer="rmsprop")
    assert input_spec(recipe, 16).margin == 0
    model = build_training_model(recipe, "float32", make_objective(recipe, None))
    compile_model(model, make_optimizer(recipe, 1))
    before = model_sha256(model)
    random = np.random.default_rng(0)
    photos = random.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    masks = random.integers(0, 3, (2, 16, 16), dtype=np.uint8)
    history = model.fit(photos, masks, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert model_sha256(model) != before
    final = build_model(recipe)
    final.set_weights(model.get_weights())
    assert final(photos).shape == (2, 16, 16, 3)
