"""Rounds, medians and percentiles of measurements that are known; accuracy of a model whose output is known."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.colours import pet_colour_spec, write_colour_model
from tests.helpers.rows import row
from unet_runtime.bench import measure as measures
from unet_runtime.bench.benchmark import bench
from unet_runtime.bench.measure import TOTAL, ColdStart, Row, Settings
from unet_runtime.bench.photos import labelled_photos, timed_photos
from unet_runtime.bench.plan import Combination, plan
from unet_runtime.bench.report import to_json
from unet_runtime.bench.worker import STAGES
from unet_runtime.core.errors import BackendError, SourceError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_combinations_take_turns_on_the_same_photos_and_a_failed_one_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def run_worker(combination: Combination, photos: list[Path], kind: str) -> dict[str, Any]:
        asked.append((combination.backend, [path.name for path in photos]))
        if combination.backend == "openvino":
            raise BackendError("broken")
        seconds = 0.010 * len(asked)
        return {
            "cold_start": {"total": seconds * 1000, "load": 0, "first": 0},
            "engine": "Engine 1",
            "device": "cpu",
            "note": "",
            "samples": [[seconds] * len(STAGES)] * len(photos),
            "peak_memory": 1000 * len(asked),
        }

    monkeypatch.setattr(measures, "run_worker", run_worker)
    combinations = [row(1, backend=backend).combination for backend in ("onnx", "openvino", "tflite")]
    settings = Settings((Path("a"), Path("b"), Path("c")), rounds=3, photos_a_round=2)
    with caplog.at_level(logging.INFO):
        first, broken, last = measures.measure(combinations, settings)

    turns = [["a", "b"], ["c", "a"], ["b", "c"]]
    expected = [("onnx", turns[0]), ("openvino", turns[0]), ("tflite", turns[0])]
    expected += [(backend, turn) for turn in turns[1:] for backend in ("onnx", "tflite")]
    assert asked == expected
    assert caplog.messages[0] == "round 1 of 3, 1 of 3: m.float32.onnx, onnx, 1 thread"
    assert broken == Row(combinations[1], error="broken")
    # onnx was asked 1st, 4th and 6th: 10, 40 and 60 ms a stage
    assert first.stages["decode"].p50 == pytest.approx(40)
    assert first.stages[TOTAL].p95 == pytest.approx(60 * len(STAGES))
    assert first.photos_a_second == pytest.approx(1 / (0.040 * len(STAGES)))
    assert first.cold_start == ColdStart(pytest.approx(40), 0, 0)
    assert (first.photos, first.peak_memory, last.peak_memory) == (6, 6000, 7000)


@pytest.fixture
def pet_model(tmp_path: Path) -> Path:
    return write_colour_model(tmp_path / "pets.onnx", pet_colour_spec())


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Two pictures of three stripes whose trimaps are right, one of which a third is wrong, one unreadable."""
    stripes = np.zeros((30, 30, 3), np.uint8)
    ids = np.zeros((30, 30), np.uint8)
    for place, colour in enumerate((RED, GREEN, BLUE)):
        stripes[:, place * 10 : place * 10 + 10] = colour
        ids[:, place * 10 : place * 10 + 10] = place + 1
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations" / "trimaps").mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.fromarray(stripes).save(tmp_path / "images" / f"{name}.jpg", quality=100, subsampling=0)
        Image.fromarray(ids if name != "b" else np.where(ids == 3, 1, ids).astype(np.uint8)).save(
            tmp_path / "annotations" / "trimaps" / f"{name}.png"
        )
    (tmp_path / "images" / "c.jpg").write_bytes(b"no photo")
    (tmp_path / "annotations" / "test.txt").write_text("a 1 1 1\n")
    return tmp_path


def test_accuracy_is_measured_once_a_model_and_engine_and_photos_that_cannot_be_read_are_named(
    pet_model: Path, labelled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    combinations, refusals = plan([pet_model], ["onnx"], ["cpu"], [1, 2])
    photos, problems = timed_photos(labelled, 9)
    assert [path.name for path in photos] == ["a.jpg", "b.jpg"]
    assert "c.jpg: not an image" in problems[0]
    with caplog.at_level(logging.INFO):
        report = bench(
            combinations, refusals, Settings(photos, 1, 2), lambda model: labelled_photos(model, labelled, None, 9)
        )
    assert sum(line.startswith("accuracy") for line in caplog.messages) == 1
    one, two = (item.accuracy for item in report.rows)
    assert one is two
    assert one is not None
    assert one.photos == 2
    assert "c.jpg" in one.left_out[0]
    # a is right everywhere; in b the blue third is labelled red. Resized 30 -> 32, the stripes' edges mix.
    assert one.class_iou == pytest.approx({"pet": 2 / 3, "background": 1.0, "border": 1 / 2}, abs=0.05)
    assert one.mean_iou == pytest.approx(np.mean(list(one.class_iou.values())))
    content = json.loads(to_json(report))
    assert content["rows"][1]["accuracy"]["mean_iou"] == one.mean_iou
    assert content["settings"]["truth"] == 3


def test_a_dataset_s_test_part_is_the_truth_and_a_folder_without_trimaps_has_none(
    pet_model: Path, labelled: Path
) -> None:
    model = plan([pet_model], ["onnx"], ["cpu"], [1])[0][0].model
    assert [item.name for item in labelled_photos(model, None, labelled, 9)] == ["a"]
    assert [item.name for item in labelled_photos(model, labelled, None, 2)] == ["a", "b"]
    assert labelled_photos(model, labelled / "images", None, 9) == []
    assert labelled_photos(model, None, None, 9) == []


def test_folders_without_a_photo_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="absent: no such folder"):
        timed_photos(tmp_path / "absent", 3)
    with pytest.raises(SourceError, match="no photo in this folder"):
        timed_photos(tmp_path, 3)
    (tmp_path / "a.jpg").write_text("text")
    with pytest.raises(SourceError, match=r"none of 1 photos can be read; the first: .*a\.jpg: not an image"):
        timed_photos(tmp_path, 3)
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations" / "trimaps").mkdir(parents=True)
    with pytest.raises(SourceError, match="no photo has labels"):
        timed_photos(tmp_path, 3)
