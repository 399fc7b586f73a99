"""The page beside a model's file: its own files alone, and nothing of a folder that is damaged."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.serving import serving
from unet_runtime.core.spec import ModelSpec, Provenance
from unet_runtime.serve.browser_page import find_page

SPEC = replace(colour_spec(), provenance=Provenance(weights_sha256="ab" * 32))


def write_page(folder: Path, spec: ModelSpec) -> None:
    """Files as ``unet-export --formats web`` names and lists them."""
    folder.mkdir()
    (folder / "index.html").write_text("<title>page</title>")
    (folder / "worker.js").write_text("1")
    (folder / "models.json").write_text(json.dumps({"models": [{"spec": asdict(spec)}]}))
    lines = []
    for path in sorted(folder.iterdir()):
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_page(tmp_path / "colours-32.web", SPEC)
    (tmp_path / "colours-32.web" / "not-listed.js").write_text("2")
    return write_colour_model(tmp_path / "colours.onnx", SPEC)


def test_its_files_and_an_archive(model: Path, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with serving(tmp_path / "log", "--model", model) as service:
        (entry,) = service.get("/models").json["models"]
        assert entry["browser"] == "/browser/colours/1/"
        first = service.get(entry["browser"])
        assert (first.status, first.body) == (200, b"<title>page</title>")
        assert "wasm-unsafe-eval" in first.headers["content-security-policy"]
        assert service.get("/browser/colours/1/worker.js").headers["content-type"].startswith("text/javascript")
        archive = service.get("/browser/colours/1.zip")
        assert archive.headers["content-disposition"] == 'attachment; filename="colours-32.web.zip"'
        with zipfile.ZipFile(io.BytesIO(archive.body)) as files:
            assert sorted(files.namelist()) == [
                f"colours-32/{name}" for name in ("SHA256SUMS", "index.html", "models.json", "worker.js")
            ]
        tricks = ("not-listed.js", "../colours.onnx", "..%2fcolours.onnx", "%2e%2e/colours.onnx", "/etc/passwd", "a/b")
        for name in tricks:
            assert service.get(f"/browser/colours/1/{name}").status == 404, name
        assert service.get("/browser/others/1/").status == 404


@pytest.mark.parametrize("name", ["worker.js", "models.json", "SHA256SUMS", "index.html"])
def test_a_damaged_folder_is_not_offered(model: Path, name: str) -> None:
    assert find_page(model, SPEC) is not None
    (model.parent / "colours-32.web" / name).write_text("other  ../name\n")
    assert find_page(model, SPEC) is None


def test_a_page_of_other_weights_is_not_this_models(model: Path) -> None:
    assert find_page(model, replace(SPEC, provenance=Provenance(weights_sha256="cd" * 32))) is None
    assert find_page(model, colour_spec()) is None
    assert find_page(None, SPEC) is None
