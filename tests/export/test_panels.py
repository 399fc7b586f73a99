"""Photos of the proof that are kept for the page."""

from __future__ import annotations

import numpy as np

from unet_export.gate.panels import PanelCollector


def one_hot(ids: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[ids]


def test_the_collector_keeps_the_worst_and_the_first() -> None:
    expected = np.zeros((6, 4, 4), np.uint8)
    actual = expected.copy()
    for index, wrong in enumerate((1, 0, 2, 0, 5, 5)):
        actual[index].reshape(-1)[:wrong] = 1
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    collector = PanelCollector(keep_typical=2)
    for start in (0, 2, 4):
        part = slice(start, start + 2)
        collector.add([f"{i}" for i in range(6)][part], images[part], one_hot(expected[part]), one_hot(actual[part]))
    panels = collector.panels()
    assert [(panel.name, panel.agreement) for panel in panels] == [("4", 11 / 16), ("0", 15 / 16), ("1", 1.0)]
    assert panels[0].image.max() == 4
    assert (panels[0].actual == actual[4]).all()
    assert all(panel.image.base is None for panel in panels)


def test_a_worst_photo_among_the_first_is_not_shown_twice() -> None:
    actual = np.zeros((4, 4, 4), np.uint8)
    actual[1] = 1
    collector = PanelCollector(keep_typical=2)
    collector.add(list("abcd"), np.zeros((4, 4, 4, 3), np.uint8), one_hot(np.zeros_like(actual)), one_hot(actual))
    assert [panel.name for panel in collector.panels()] == ["b", "a", "c"]
    assert PanelCollector().panels() == ()


def test_a_photo_loses_the_margin_that_the_model_does_not_answer_for() -> None:
    image = np.zeros((1, 8, 10, 3), np.uint8)
    image[0, 2:6, 2:8] = 9
    collector = PanelCollector()
    collector.add(["a"], image, one_hot(np.zeros((1, 4, 6), np.uint8)), one_hot(np.ones((1, 4, 6), np.uint8)))
    (shown,) = collector.panels()
    assert shown.image.shape == (4, 6, 3)
    assert (shown.image == 9).all()
    assert shown.agreement == 0
