"""The model card: read as Hugging Face's hub and a YAML parser read it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.helpers.results import FLOAT, INT8, NO_CUDA, SAVED, SPEC, artifact, report
from unet_export.report.card import render_card, write_card
from unet_runtime.core.spec import ClassSpec, Provenance
from unet_runtime.io.stamps import is_ours


def front(text: str) -> dict[str, Any]:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("\n---\n")[0])


def test_the_hub_reads_it() -> None:
    measured = {
        "mean_iou": 0.79,
        "iou": {"red": 0.9, "green": 0.8},
        "photos": 100,
        "split": "test",
    }
    spec = replace(
        SPEC, license="Apache-2.0", provenance=Provenance(data="Oxford-IIIT Pet, 100 photos", metrics=measured)
    )
    text = render_card(report(FLOAT, INT8, SAVED, spec=spec), [FLOAT, INT8, SAVED])
    card = ModelCard(text)
    assert (card.data.license, card.data.pipeline_tag, card.data.library_name) == (
        "apache-2.0",
        "image-segmentation",
        "unet-edge",
    )
    assert {"onnx", "tflite", "tensorflow"} < set(card.data.tags)
    assert card.data.model_name == "colours"
    found = {entry.metric_name: entry.metric_value for entry in card.data.eval_results}
    assert found == {
        "mean IoU on 100 test photos, float32": 0.79,
        "red IoU on 100 test photos, float32": 0.9,
        "green IoU on 100 test photos, float32": 0.8,
    }
    for result in (FLOAT, INT8):
        assert f"| {result.path.name} | {result.precision} |" in card.text
    assert "ONNX Runtime 1.0 | 1.00e" in card.text
    assert "unet-run --model colours-16.float32.onnx photo.jpg" in card.text


def test_figures_of_the_gate_where_training_left_none() -> None:
    data = front(render_card(report(FLOAT), [FLOAT]))
    (entry,) = data["model-index"]
    assert entry["results"][0]["metrics"][0] == {
        "type": "mean_iou",
        "name": "mean IoU on the 64 photos of the proof, float32",
        "value": 0.75,
    }
    assert data["license"] == "cc0-1.0"
    assert "license_name" not in data


def test_a_file_that_no_engine_checked() -> None:
    unproven = artifact("onnx", 4000, NO_CUDA)
    text = render_card(report(unproven), [unproven])
    assert "| colours-16.float32.onnx | float32 | 0.00 | not checked |" in text
    assert "model-index" not in front(text)


NASTY = ("# heading", "a | b", "`x`", "<script>", "é: [y]", "'\"", "---", "*", "{{ 7 * 7 }}", "- x", "@", "%")


@pytest.mark.parametrize("name", NASTY)
def test_names_of_others_are_text(name: str) -> None:
    classes = (ClassSpec(name, (255, 0, 0), "foreground"), *SPEC.classes[1:])
    provenance = Provenance(data=name, command=name, split="official")
    spec = replace(SPEC, license=name, classes=classes, provenance=provenance)
    text = render_card(report(FLOAT, spec=spec, model=name), [FLOAT])
    data = front(text)
    assert (data["license"], data["license_name"]) == ("other", name)
    body = text.split("\n---\n", 1)[1]
    assert body.count("\n# ") == 1
    assert "<script>" not in re.sub("`[^`]*`", "", body)
    assert len({line.count(" | ") for line in body.splitlines() if line.startswith("| colours")}) == 1


def test_the_same_export_has_the_same_card(tmp_path: Path) -> None:
    cards = [render_card(report(FLOAT, INT8, keras_milliseconds=time), [FLOAT, INT8]) for time in (1.0, 2.0)]
    assert cards[0] == cards[1]


def test_a_readme_of_people_stays(tmp_path: Path) -> None:
    output, folder = tmp_path / "out", tmp_path / "new"
    output.mkdir()
    folder.mkdir()
    readme = output / "README.md"
    readme.write_text("# My model\n")
    assert write_card(report(FLOAT), [FLOAT], folder, output, overwrite=False) == []
    assert write_card(report(FLOAT), [FLOAT], folder, output, overwrite=True) == ["README.md"]
    (folder / "README.md").replace(readme)
    assert is_ours(readme, "unet-export")
    assert write_card(report(FLOAT), [FLOAT], folder, output, overwrite=False) == ["README.md"]
