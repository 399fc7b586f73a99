"""From what the commands wrote to a table and a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.colours import colour_spec
from unet_runtime.core.spec import ModelSpec, Provenance
from unet_training.compare import plot
from unet_training.compare.points import Point
from unet_training.compare.result import Row, as_json, make_row, markdown

METRICS = {"mean_iou": 0.71, "loss": 0.3, "iou": {"pet": 0.8, "background": 0.9, "border": 0.43}}


def spec() -> ModelSpec:
    return replace(colour_spec(160), provenance=Provenance(metrics=METRICS))


def checked(name: str, precision: str, change: float, **more: Any) -> dict[str, Any]:
    engines = [
        {"backend": backend, "figures": {"iou_change": change, "agreement": 0.995}} for backend in ("onnx", "openvino")
    ]
    return {
        "file": name,
        "precision": precision,
        "bytes": 2_000_000,
        "passed": True,
        "quantization": {},
        "engines": engines,
    } | more


def timed(path: Path, backend: str, milliseconds: float) -> dict[str, Any]:
    return {"model": {"file": str(path)}, "backend": backend, "stages": {"inference": {"p50": milliseconds}}}


@pytest.fixture
def compared(tmp_path: Path) -> Row:
    full, small = tmp_path / "a.float32.onnx", tmp_path / "a.int8.onnx"
    quantization = {"method": "percentile", "equalized": True, "precise": ["stem", "logits"], "finetune_steps": 0}
    parity = {
        "artifacts": [
            checked(full.name, "float32", 0.0),
            checked(small.name, "int8", -0.25, quantization=quantization),
        ]
    }
    other = timed(tmp_path / "other.onnx", "onnx", 1.0)
    failed = {"model": {"file": str(small)}, "backend": "openvino", "stages": {}}
    bench = {
        "rows": [other, timed(full, "onnx", 20.0), timed(full, "openvino", 18.0), timed(small, "onnx", 9.5), failed]
    }
    return make_row(Point("unet", 16), spec(), 1_947_027, [full, small], parity, bench)


def test_a_row_has_its_own_artifacts_each_in_each_engine_that_ran(compared: Row) -> None:
    assert (compared.label, compared.size, compared.parameters) == ("unet:16", 160, 1_947_027)
    assert (compared.mean_iou, compared.lowest_class, compared.lowest_iou, compared.loss) == (0.71, "border", 0.43, 0.3)
    assert [(one.variant, one.milliseconds, one.iou_change) for one in compared.artifacts] == [
        ("onnx float32", 20.0, 0.0),
        ("openvino float32", 18.0, 0.0),
        ("onnx int8", 9.5, -0.25),
    ]
    assert [one.repair for one in compared.artifacts] == [
        "",
        "",
        "calibration by percentile, equal ranges, 2 layers precise",
    ]


def test_the_table_begins_with_the_most_accurate(compared: Row) -> None:
    better = replace(compared, label="better", mean_iou=0.75, artifacts=compared.artifacts[:1])
    lines = markdown([compared, better]).splitlines()
    assert lines[0] == (
        "| network | input | parameters | mean IoU | border IoU | onnx float32, ms | openvino float32, ms | "
        "onnx int8, ms | onnx int8, points |"
    )
    assert lines[2] == "| better | 160 | 1,947,027 | 0.7500 | 0.4300 | 20.0 |  |  |  |"
    assert lines[3].endswith(
        "| 20.0 | 18.0 | 9.5 | -0.25 (repaired: calibration by percentile, equal ranges, 2 layers precise) |"
    )


def test_a_failed_gate_is_said(compared: Row) -> None:
    artifacts = tuple(replace(one, passed=False) for one in compared.artifacts)
    assert "gate failed" in markdown([replace(compared, artifacts=artifacts)])


def test_json_holds_every_metric(compared: Row) -> None:
    content = as_json([compared], {"rounds": 5})
    assert content["settings"] == {"rounds": 5}
    assert content["rows"][0]["artifacts"][2]["milliseconds"] == 9.5


def test_the_plot_has_a_panel_for_each_engine(compared: Row, tmp_path: Path) -> None:
    rows = [replace(compared, label=f"net:{number}", mean_iou=0.6 + number / 50) for number in range(12)]
    panels = plot.panels_of(rows)
    assert list(panels) == [
        "ONNX Runtime float32, ms",
        "OpenVINO float32, ms",
        "ONNX Runtime int8, ms",
        "file, float32, MB",
        "file, int8, MB",
        "parameters, millions",
    ]
    assert all(len(dots) == 12 for dots in panels.values())
    # What integers lost is lost in their panel.
    assert panels["ONNX Runtime int8, ms"][0].mean_iou == pytest.approx(0.6 - 0.0025)
    plot.draw(rows, tmp_path / "compare.png")
    with Image.open(tmp_path / "compare.png") as picture:
        assert picture.width > 1000
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_the_line_joins_what_nothing_cheaper_beats() -> None:
    dots = [plot.Dot("a", 3, 0.7), plot.Dot("b", 1, 0.6), plot.Dot("c", 2, 0.5), plot.Dot("d", 4, 0.69)]
    assert [dot.label for dot in plot.pareto_front(dots)] == ["b", "a"]
    assert [dot.label for dot in plot.pareto_front([*dots, plot.Dot("e", 1, 0.9, passed=False)])] == ["b", "a"]
    assert plot.pareto_front([plot.Dot("e", 1, 0.9, passed=False)]) == []


def test_a_file_that_failed_is_marked(compared: Row, tmp_path: Path) -> None:
    """In the panels of its time and size, and nowhere else; a panel of failures alone is drawn, too."""
    failed = replace(compared, artifacts=tuple(replace(one, passed=False) for one in compared.artifacts))
    panels = plot.panels_of([failed])
    assert {title: dots[0].passed for title, dots in panels.items()} == dict.fromkeys(panels, False) | {
        "parameters, millions": True
    }
    plot.draw([failed], tmp_path / "compare.png")


def test_the_title_says_data_size_and_photos(compared: Row) -> None:
    row = replace(compared, data="Pets, 3473 photos", photos=2922)
    assert plot.title_of([row]) == "Pets, 3473 photos; inputs of 160 pixels; mean IoU on 2,922 test photos"
    other = replace(row, size=212, data="Cats")
    assert plot.title_of([row, other]).startswith("several data sets; inputs of 160 and 212 pixels")
