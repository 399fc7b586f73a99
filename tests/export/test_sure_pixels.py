"""Agreement of models that are unsure: judged where they are not, and said for all pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.helpers.results import SPEC, artifact, engine, metrics
from unet_export.gate.gate import FOREIGN_GATES, GATES, UNSURE_MARGIN, Metrics, accepting, changed_gates, judge
from unet_export.gate.tally import Tally

UNSURE = FOREIGN_GATES["int8"]


def measured(shares: list[float], flipped: list[bool]) -> Metrics:
    """Metrics of pixels whose best class has ``shares`` of the probability, and the next one the rest."""
    best = np.array(shares, np.float32)
    expected = np.stack([best, 1 - best, np.zeros_like(best)], axis=-1)[np.newaxis, np.newaxis]
    actual = expected.copy()
    actual[..., np.array(flipped), :2] = actual[..., np.array(flipped), 1::-1]
    reference, tally = Tally(SPEC), Tally(SPEC, UNSURE.margin)
    reference.add(expected, expected, None)
    tally.add(expected, actual, None)
    return tally.metrics(reference)


def test_toss_ups_do_not_count_and_both_figures_are_said() -> None:
    found = measured([0.9] * 96 + [0.52] * 4, [False] * 96 + [True] * 4)
    assert (found.agreement, found.sure, found.sure_agreement) == (0.96, 0.96, 1.0)
    assert judge(found, UNSURE) == ()
    (failure,) = judge(found, GATES["int8"])
    assert failure.startswith("agreement 96.000%, at least 99.00%")
    wrong = measured([0.9] * 96 + [0.52] * 4, [True] * 2 + [False] * 98)
    (failure,) = judge(wrong, UNSURE)
    assert "agreement 97.917% of the 96.0% of pixels with a lead of 0.1 (98.000% of all)" in failure


def test_a_model_that_is_unsure_of_most_is_judged_on_all() -> None:
    found = measured([0.9] * 40 + [0.52] * 60, [False] * 40 + [True] * 60)
    assert judge(found, UNSURE) != ()


def test_models_of_unet_train_are_judged_as_before() -> None:
    assert {gate.margin for gate in GATES.values()} == {0.0}
    assert FOREIGN_GATES["float32"] == GATES["float32"]
    assert replace(UNSURE, margin=0.0) == GATES["int8"]
    assert changed_gates(["int8.margin=0.1"])["int8"].margin == UNSURE_MARGIN


def test_a_failure_names_the_option_that_would_accept_it_and_what_that_means() -> None:
    worse = artifact("tflite-int8", 900, engine("tflite", 5.0, metrics(-0.4, 0.1, 0.985), precision="int8"))
    text = accepting(worse)
    assert "--gate int8.agreement=0.985 --gate int8.iou_drop=0.4" in text
    assert "1.50% of the pixels may have another class, mean IoU may lose 0.4" in text
    hair = artifact("tflite", 900, engine("tflite", 5.0, metrics(max_abs=1.9e-5, agreement=1.0)))
    assert accepting(hair) == (
        "--gate float32.max_abs=1.9e-05 accepts it: every pixel has the same class, the differences are float32's own "
        "rounding"
    )
    assert accepting(artifact("onnx", 900, engine("onnx", 5.0, metrics()))) == ""
