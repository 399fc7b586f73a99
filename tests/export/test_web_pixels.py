"""pixels.js, the runtime's way from photo to mask in a browser: the same numbers as Pillow's and the runtime's."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

import unet_export
from tests.helpers.colours import colour_spec
from unet_runtime.core import masks
from unet_runtime.core.geometry import model_input, place
from unet_runtime.core.segmentation import Segmentation
from unet_runtime.core.spec import InputSpec, ModelSpec, OutputSpec

SOURCE = Path(unet_export.__file__).with_name("formats") / "page" / "pixels.js"

ROUNDING = 0 if int(PIL.__version__.partition(".")[0]) >= 13 else 1
"""Earlier ones resize in another order."""

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(browser: Any) -> Call:
    """Calls a function of pixels.js: arrays become typed arrays, and what comes back is a list."""
    page = browser.new_page()
    address = "data:text/javascript;base64," + base64.b64encode(SOURCE.read_bytes()).decode()
    page.evaluate("async (address) => { window.pixels = await import(address); }", address)

    def call(name: str, *arguments: Any) -> Any:
        given = []
        for value in arguments:
            given.append(_packed(value))
        return page.evaluate(
            """([name, given]) => {
                const open = (value) => {
                    if (Array.isArray(value)) return value.map(open);
                    if (!value || !value.kind) return value;
                    const bytes = Uint8Array.from(atob(value.content), (letter) => letter.charCodeAt(0));
                    return value.kind === "float32" ? new Float32Array(bytes.buffer) : bytes;
                };
                const result = pixels[name](...given.map(open));
                if (ArrayBuffer.isView(result)) return Array.from(result);
                const isPlanes = Array.isArray(result) && ArrayBuffer.isView(result[0]);
                return isPlanes ? result.map((plane) => Array.from(plane)) : result;
            }""",
            [name, given],
        )

    return call


def _packed(value: Any) -> Any:
    if isinstance(value, ModelSpec):
        return asdict(value)
    if isinstance(value, list):
        return [_packed(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return {"kind": value.dtype.name, "content": base64.b64encode(value.tobytes()).decode()}
    return value


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 10_000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


SIZES = [(250, 188), (33, 47), (1, 1), (1, 90), (200, 1), (32, 32), (31, 33), (90, 190)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(32, 32), (40, 24), (1, 1)])
def test_a_photo_is_resized_as_by_pillow(call: Call, size: tuple[int, int], target: tuple[int, int]) -> None:
    photo = picture(*size)
    found = call("resized", np.asarray(photo), *size, *target)
    expected = np.asarray(photo.resize(target, Image.Resampling.BILINEAR))
    assert np.abs(np.array(found).reshape(expected.shape) - expected.astype(int)).max() <= ROUNDING


INPUTS = [
    InputSpec(32, 32),
    InputSpec(24, 40),
    InputSpec(32, 32, fit="letterbox"),
    InputSpec(24, 40, fit="letterbox"),
    InputSpec(40, 40, fit="letterbox", margin=6),
    InputSpec(40, 40, margin=4),
]


def spec_of(size: InputSpec) -> ModelSpec:
    output = OutputSpec(size.height - 2 * size.margin, size.width - 2 * size.margin)
    return replace(colour_spec(), input=size, output=output)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spec", [spec_of(size) for size in INPUTS])
def test_a_photo_lies_in_the_input_as_the_runtime_puts_it(call: Call, size: tuple[int, int], spec: ModelSpec) -> None:
    photo = picture(*size)
    found = call("modelInput", np.asarray(photo), *size, spec)
    assert np.abs(np.array(found) - model_input(photo, spec.input).ravel().astype(int)).max() <= ROUNDING
    part = call("place", *size, spec)["part"]
    assert part == place(size, spec).part._asdict()


@pytest.mark.parametrize("size", [(500, 375), (33, 47), (1, 1), (90, 7), (20, 11)])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_masks_are_those_of_the_runtime(call: Call, size: tuple[int, int], activation: Any) -> None:
    spec = replace(colour_spec(16), output=OutputSpec(16, 16, activation=activation))
    rng = np.random.default_rng(size[0])
    probabilities = rng.random((16, 16, 3), np.float32) ** 2
    if activation == "softmax":
        probabilities /= probabilities.sum(axis=-1, keepdims=True)
    result = Segmentation(picture(*size), probabilities, spec, place(size, spec))
    part = place(size, spec).part
    box = part._asdict()
    planes = masks.photo_planes(probabilities, place(size, spec), spec)
    in_browser = call("photoPlanes", probabilities, box, spec)
    assert np.array_equal(np.array(in_browser, np.float32).reshape(planes.shape), planes)
    given = list(planes.reshape(3, -1))
    assert np.array_equal(np.array(call("classMask", given, box, *size)).reshape(result.mask.shape), result.mask)
    opacity = np.array(call("opacity", given, box, *size, spec)).reshape(result.opacity.shape)
    assert np.abs(opacity - result.opacity.astype(int)).max() <= 1
    assert tuple(call("found", given, spec)) == result.found()
    areas = call("areas", result.mask, spec)
    assert [areas[name]["pixels"] for name in spec.class_names] == np.bincount(
        result.mask.ravel(), minlength=3
    ).tolist()
