"""A tiny network of every architecture, trained once: its weights are committed, so no test depends on a training.

    python -m tests.helpers.family NAME ...

trains the named architectures and writes ``family/NAME.npz``. What a training ends with differs from CPU to CPU; what
these weights compute does so by float rounding alone. Measured in int8 TFLite: 99.63 to 99.93 % of pixels agree (gate
99), at most 0.14 point of mean IoU and 0.27 of the border's are lost (gates 0.3 and 0.5), the same with oneDNN's
kernels and without.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from unet_runtime.core.artifact import write_keras
from unet_runtime.core.spec import ModelSpec, OutputSpec, Provenance
from unet_training.build import PET_CLASSES, build_model, input_spec
from unet_training.pipeline import train
from unet_training.recipes import PRESETS, Recipe

WEIGHTS = Path(__file__).with_name("family")
"""One ``.npz`` per architecture: float16, by the variable's path."""

COLOURS = np.array([[200, 60, 60], [60, 60, 200], [60, 200, 60]])
"""RGB of pet, background and border: classes that differ in colour are learnt in a few steps."""

SMALL = {"filters": 4, "depth": 1, "size": 48, "learning_rate": 5e-3}  # unet2015 predicts 32 of the 48 pixels
CHANGES = {
    "canet": {"filters": 32, "depth": 2, "learning_rate": 1e-3},
    "dense": {"filters": 6},
    "ladder": {"filters": 8},
    # At depth 1 there is no decoder.
    "lite": {"filters": 8, "depth": 3},
}


def recipe(name: str, epochs: int) -> Recipe:
    """A training of the architecture ``name`` on ``write_discs``' pictures."""
    changes = SMALL | CHANGES.get(name, {})
    demo = replace(PRESETS["demo"], name=name, architecture=name, batch_size=8, epochs=epochs, validation=8)
    return replace(demo, **changes)


def draw(random: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A disc for an animal: RGB (height, width, 3), trimap values (height, width)."""
    rows, columns = np.indices((height, width))
    centre = random.uniform(0.35, 0.65, 2) * (height, width)
    radius = random.uniform(0.2, 0.35) * min(height, width)
    distance = np.hypot(rows - centre[0], columns - centre[1])
    classes = np.where(distance < radius, 0, np.where(distance < 1.35 * radius, 2, 1))
    photo = COLOURS[classes] + random.normal(0, 12, (height, width, 3))
    return np.clip(photo, 0, 255).astype(np.uint8), (classes + 1).astype(np.uint8)


def write_discs(root: Path) -> Path:
    """72 pictures of 64x52 pixels to train on, 16 for the test, in the layout of Oxford-IIIT Pet."""
    (root / "images").mkdir(parents=True)
    (root / "annotations" / "trimaps").mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [f"disc_{number:03}" for number in range(88)]
    for name in names:
        photo, trimap = draw(random, 52, 64)
        Image.fromarray(photo).save(root / "images" / f"{name}.jpg", quality=95)
        Image.fromarray(trimap).save(root / "annotations" / "trimaps" / f"{name}.png")
    (root / "annotations" / "trainval.txt").write_text("\n".join(names[:72]))
    (root / "annotations" / "test.txt").write_text("\n".join(names[72:]))
    return root


def write_model(name: str, path: Path) -> Path:
    """Write the architecture's network with its committed weights and its spec."""
    stored = WEIGHTS / f"{name}.npz"
    assert stored.is_file(), f"no weights of {name}: python -m tests.helpers.family {name}"
    settings = recipe(name, 1)
    model = build_model(settings)
    with np.load(stored) as arrays:
        for variable in model.weights:
            variable.assign(arrays[variable.path].astype(np.float32))
    _, height, width, _ = model.output_shape
    spec = ModelSpec(
        name,
        name,
        "CC0-1.0",
        input_spec(settings, settings.size),
        OutputSpec(height, width),
        PET_CLASSES,
        provenance=Provenance(split="official"),
    )
    write_keras(model.save, path, spec)
    return path


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        discs = write_discs(Path(folder) / "discs")
        for name in sys.argv[1:]:
            output = Path(folder) / name
            result = train(recipe(name, 40), discs, output, data_name="discs", seed=1)
            weights = keras.models.load_model(result.model).weights
            arrays = {variable.path: np.float16(keras.ops.convert_to_numpy(variable)) for variable in weights}
            np.savez_compressed(WEIGHTS / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
