"""The same model and photos give the same bytes: in another process, folder and hash order, on another day."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import tiny
from unet_export.formats import FORMATS

NAMES = tuple(name for name in FORMATS if name.startswith(("onnx", "tflite")))

SCRIPT = """
import hashlib, json, sys, time
from pathlib import Path

days = int(sys.argv[3]) * 86400.0
now, ticks = time.time, time.time_ns
time.time, time.time_ns = lambda: now() + days, lambda: ticks() + int(days * 1e9)

import numpy as np
from unet_export.formats import FORMATS, Builder
from unet_export.foreign.load import load_model
from unet_export.photos import PhotoSets

model, spec = load_model(Path(sys.argv[1]))
builder = Builder(model, spec, PhotoSets((), (), (), ""), Path(sys.argv[2]))
size = (16, spec.input.height, spec.input.width, 3)
vars(builder)["_inputs"] = np.random.default_rng(0).integers(0, 256, size, np.uint8)
found = {}
for name in sys.argv[4:]:
    form = FORMATS[name]
    path = Path(sys.argv[2]).parent / form.file_name(spec)
    builder.write(form, path, form.quantization)
    found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
print(json.dumps(found))
"""
"""MODEL WORK DAYS FORMAT...: digests of the files, written ``DAYS`` from now."""


@pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="loads TensorFlow twice: set SLOW_TESTS=1")
def test_the_same_bytes_on_another_day(tmp_path: Path) -> None:
    digests = []
    for seed, days, place in (("1", "0", tmp_path / "a"), ("2", "40", tmp_path / "somewhere" / "else" / "entirely")):
        place.mkdir(parents=True)
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": f"UTC-{seed}"}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tiny.SOFTMAX_FILE), str(place / "work"), days, *NAMES],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        digests.append(json.loads(done.stdout.splitlines()[-1]))
    assert digests[0] == digests[1]
    assert len(set(digests[0].values())) == len(NAMES)
