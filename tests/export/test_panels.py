"""Photos of the proof that are kept for the page."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.helpers.exported import Export
from tests.helpers.tiny import TEST
from unet_export.gate.gate import masks_of
from unet_runtime import Segmenter
from unet_runtime.core.spec import ModelSpec


def test_an_integer_artifact_has_the_worst_photo_and_the_first_ones(
    exported: Export, model: Any, images: Any, spec: ModelSpec
) -> None:
    for result in exported.results:
        if not result.quantization:
            assert result.panels == ()
            continue
        expected = masks_of(model(images, training=False).numpy())
        actual = masks_of(Segmenter(result.path, device="cpu").infer(images))
        worst = int((expected == actual).mean(axis=(1, 2)).argmin())
        others = [index for index in range(TEST) if index != worst]
        assert [panel.name for panel in result.panels] == [f"test_{index:03}" for index in (worst, *others[:2])]
        np.testing.assert_array_equal(result.panels[0].image, images[worst])
        np.testing.assert_array_equal(result.panels[0].actual, actual[worst])
        assert result.panels[0].agreement == min(panel.agreement for panel in result.panels) < 1
