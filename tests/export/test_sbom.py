"""The bill of materials of a bundle: valid CycloneDX 1.6 by an independent implementation, and true."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from unet_export.bundle.archive import write_archive
from unet_export.bundle.bundle import bill_path
from unet_export.bundle.sbom import bill_of_materials
from unet_runtime.engines import MODELS

METADATA = {
    "unet_edge_runtime": "License-Expression: Apache-2.0 AND CC0-1.0\n",
    "click": "License: BSD\n A text of many lines\n that follows.\n",
    "silent": "",
}


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, dict[str, Path], list[Path]]:
    """(archive, wheels by name, model files)."""
    wheels = {}
    for name, text in METADATA.items():
        wheels[name] = tmp_path / f"{name}-0.1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheels[name], "w") as archive:
            about = f"Metadata-Version: 2.4\nName: {name.replace('_', '-')}\nVersion: 0.1.0\n{text}"
            archive.writestr(f"{name}-0.1.0.dist-info/METADATA", about)
    folder = tmp_path / "unet-edge-linux-aarch64"
    folder.mkdir()
    (folder / "README.txt").write_text("text")
    archive_path = tmp_path / "unet-edge-linux-aarch64.tar.gz"
    write_archive(folder, archive_path)
    return archive_path, wheels, sorted(MODELS.glob("*.*"))


def bill(parts: tuple[Path, dict[str, Path], list[Path]]) -> dict[str, Any]:
    archive, wheels, models = parts
    text = bill_of_materials(archive, wheels["unet_edge_runtime"], wheels.values(), models)
    assert text == bill_of_materials(archive, wheels["unet_edge_runtime"], wheels.values(), models)
    return json.loads(text)


def test_it_is_valid(parts: tuple[Path, dict[str, Path], list[Path]]) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="no cyclonedx-python-lib")
    schema = pytest.importorskip("cyclonedx.schema")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(bill(parts))) is None
    broken = bill(parts)
    broken["components"][0]["type"] = "wheel"
    assert validator.validate_str(json.dumps(broken)) is not None


def test_digests_are_those_of_the_files(parts: tuple[Path, dict[str, Path], list[Path]]) -> None:
    archive, wheels, models = parts
    found = bill(parts)
    digests = [component["hashes"][0]["content"] for component in found["components"]]
    assert digests == [hashlib.sha256(path.read_bytes()).hexdigest() for path in [*wheels.values(), *models]]
    assert found["metadata"]["component"]["hashes"][0]["content"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    (root,) = found["dependencies"]
    assert root["dependsOn"] == [component["bom-ref"] for component in found["components"]]


def test_a_model_has_a_card(parts: tuple[Path, dict[str, Path], list[Path]]) -> None:
    models = [entry for entry in bill(parts)["components"] if entry["type"] == "machine-learning-model"]
    assert len(models) == len(parts[2])
    for model in models:
        card = model["modelCard"]
        assert card["modelParameters"]["datasets"][0]["name"].startswith("Oxford-IIIT Pet")
        assert "160x160" in card["modelParameters"]["inputs"][0]["format"]
        assert {entry["type"] for entry in card["quantitativeAnalysis"]["performanceMetrics"]} >= {"mean_iou", "iou"}
        assert "for research purposes" in model["licenses"][0]["license"]["name"]


def test_licences_are_what_the_wheels_say(parts: tuple[Path, dict[str, Path], list[Path]]) -> None:
    found = {entry["name"]: entry for entry in bill(parts)["components"][:3]}
    assert found["unet-edge-runtime"]["licenses"] == [{"expression": "Apache-2.0 AND CC0-1.0"}]
    assert found["unet-edge-runtime"]["purl"].startswith("pkg:generic/")  # on no index: another's name there
    assert found["click"]["licenses"] == [{"license": {"name": "BSD"}}]
    assert found["click"]["purl"] == "pkg:pypi/click@0.1.0"
    assert "licenses" not in found["silent"]


@pytest.mark.parametrize("name", ["a.b-linux.tar.gz", "a.b-linux.zip"])
def test_its_name_is_the_bundles(name: str) -> None:
    assert bill_path(Path("folder") / name) == Path("folder/a.b-linux.cdx.json")
