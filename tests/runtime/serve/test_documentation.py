"""The curl lines and the client of docs/serving.md, as they stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import bundled
from tests.helpers.paths import REPOSITORY
from tests.helpers.serving import serving

PAGE = (REPOSITORY / "docs/serving.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:8000"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_lines_do_what_they_say(tmp_path: Path, sample_photo: Path) -> None:
    lines = re.findall(r"^curl .+$", PAGE, re.MULTILINE)
    assert len(lines) > 8
    shutil.copy(sample_photo, tmp_path / "photo.jpg")
    with serving(tmp_path, "--timeout", "600") as service:
        for line in lines:
            command = line.replace(ADDRESS, f"127.0.0.1:{service.port}").replace("curl -s", "curl -sS --fail")
            subprocess.run(command, shell=True, check=True, cwd=tmp_path, timeout=120)
        (client,) = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
        script = client.replace(ADDRESS, f"127.0.0.1:{service.port}")
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        output = bundled.SPEC.output
        assert done.stdout.strip() == f"(1, {output.height}, {output.width})", done.stderr
    modes = {"cutout.png": "RGBA", "mask.png": "L", "overlay.jpg": "RGB", "cutout.webp": "RGBA"}
    for name, mode in modes.items():
        with Image.open(tmp_path / name) as picture:
            assert (picture.mode, picture.size) == (mode, (451, 300))
    assert json.loads((tmp_path / "photo.json").read_text())["categories"]
    assert json.loads((tmp_path / "health.json").read_text())["status"] == "ok"
    assert "unet_requests_total" in (tmp_path / "metrics.txt").read_text()
