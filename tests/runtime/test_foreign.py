"""Files of other tools: the runtime follows their specs; every result beside its definition in NumPy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.foreign import IMAGENET, SIDE, Network, tflite
from unet_runtime import BackendError, ModelFileError, ModelSpec, Segmenter
from unet_runtime.core.artifact import append_to_onnx, append_to_tflite
from unet_runtime.core.spec import InputSpec, OutputSpec

FLOAT = {"range": (0.0, 1.0)}
MEAN = {**FLOAT, "mean": IMAGENET[0], "std": IMAGENET[1]}
CAFFE = {"channels": "bgr", "mean": (103.939, 116.779, 123.68)}

NETWORKS: dict[str, tuple[Network, dict[str, Any]]] = {
    "PyTorch": (Network(), MEAN),
    "BGR": (Network(), {**CAFFE, "std": (60.0, 60.0, 60.0)}),
    "-1..1, NHWC": (Network(layout="nhwc", activation="softmax"), {"range": (-1.0, 1.0)}),
    "uint8, NCHW": (Network(dtype="uint8"), {}),
    "grey": (Network(depth=1), {**FLOAT, "channels": "grey", "mean": (0.5,), "std": (0.25,)}),
    "sigmoid": (Network(channels=4, activation="sigmoid"), FLOAT),
    "mask": (Network(channels=1, activation="sigmoid"), FLOAT),
    "mask, logit": (Network(channels=1, layout="nhwc"), FLOAT),
    "labels": (Network(activation="argmax"), FLOAT),
    "labels with their axis": (Network(activation="argmax", keepdims=True), FLOAT),
    "a quarter": (Network(pool=4), FLOAT),
    "twice": (Network(enlarge=2, activation="softmax"), FLOAT),
    "the second output": (Network(second=True, activation="softmax"), FLOAT),
    "batch of 1": (Network(batch=1), FLOAT),
    "batch of 4": (Network(batch=4), FLOAT),
    "any size": (Network(size=("h", "w")), FLOAT),
    "not square": (Network(size=(16, 48)), FLOAT),
}


def photos(count: int, network: Network) -> np.ndarray:
    height, width = (side if isinstance(side, int) else SIDE for side in network.size)
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_files_by_definition(name: str, backend: str, tmp_path: Path) -> None:
    network, fields = NETWORKS[name]
    spec = network.spec(**fields)
    path = tmp_path / "theirs.onnx"
    path.write_bytes(append_to_onnx(network.onnx(), spec))
    segmenter = Segmenter(path, backend=backend)
    images = photos(3, network)
    found = segmenter.infer(images)
    expected = network.expected(images, spec.input)
    assert found.dtype == np.float32
    if network.activation == "argmax":
        assert (found == expected).mean() > 0.999  # a tie may go either way
    else:
        np.testing.assert_allclose(found, expected, atol=2e-5)
    result = segmenter(Image.fromarray(images[0]))
    assert result.mask.shape == images[0].shape[:2]
    if network.pool == network.enlarge == 1:
        assert (result.mask == expected[0].argmax(axis=-1)).mean() > 0.99
    assert len(segmenter.batch([*images])) == 3


@pytest.mark.parametrize(
    ("network", "fields"),
    [
        (Network("nhwc", activation="softmax"), MEAN),
        (Network("nhwc", channels=1), {**FLOAT, "channels": "bgr"}),
        (Network("nhwc", channels=1, activation="sigmoid"), {"range": (-1.0, 1.0)}),
        (Network("nhwc", activation="argmax"), FLOAT),
        (Network("nhwc", depth=1, activation="softmax"), {**FLOAT, "channels": "grey"}),
    ],
)
def test_tflite_files_by_definition(network: Network, fields: dict[str, Any], tmp_path: Path) -> None:
    spec = network.spec(**fields)
    path = tmp_path / "theirs.tflite"
    path.write_bytes(append_to_tflite(tflite(network), spec))
    images = photos(2, network)
    found = Segmenter(path).infer(images)
    np.testing.assert_allclose(found, network.expected(images, spec.input), atol=2e-5)


def test_a_quantised_input_holds_the_value_in_its_steps(tmp_path: Path) -> None:
    """MediaPipe's: -1..1 in steps of 1/128 is the photo's own byte, nearly."""
    network = Network("nhwc", activation="softmax")
    spec = network.spec(range=(-1.0, 1.0))
    spec = replace(spec, input=replace(spec.input, dtype="uint8"), precision="int8")
    path = tmp_path / "theirs.tflite"
    path.write_bytes(append_to_tflite(tflite(network, scale=1 / 128, zero_point=128), spec))
    images = photos(2, network)
    found = Segmenter(path).infer(images)
    np.testing.assert_allclose(found, network.expected(images, spec.input), atol=0.02)
    assert np.abs(found - network.expected(images[..., ::-1], spec.input)).max() > 0.1


def test_half_precision(tmp_path: Path) -> None:
    network = Network(dtype="float16")
    spec = replace(network.spec(**MEAN), precision="float16")
    path = tmp_path / "theirs.onnx"
    path.write_bytes(append_to_onnx(network.onnx(), spec))
    images = photos(2, network)
    np.testing.assert_allclose(Segmenter(path).infer(images), network.expected(images, spec.input), atol=0.02)


def test_grey_is_pillows() -> None:
    from unet_runtime.core import tensors

    spec = InputSpec(SIDE, SIDE, channels="grey")
    images = photos(1, Network())
    found = tensors.fed(images, spec, tensors.values(spec))[0, ..., 0]
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(images[0]).convert("L")))


def halves(width: int, height: int) -> Image.Image:
    """Left half black, right half white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("network", [Network(pool=4), Network(enlarge=2), Network()])
def test_an_output_of_another_size_lies_where_the_photo_is(network: Network, fit: str, tmp_path: Path) -> None:
    """The edge between the halves is at the same place of the photo, and top and bottom have no black bar."""
    spec = network.spec(fit=fit, **FLOAT)
    path = tmp_path / "theirs.onnx"
    path.write_bytes(append_to_onnx(network.onnx(), spec))
    segmenter = Segmenter(path)
    colours = np.array([[[[0] * 3, [255] * 3]]], np.uint8)
    single = replace(network, pool=1, enlarge=1)
    black, white = single.expected(colours, spec.input)[0, 0].argmax(axis=-1)
    assert black != white
    photo = halves(24, 12)
    for result in (segmenter(photo), segmenter.tiled(photo)):
        assert (result.mask[:, :8] == black).all()
        assert (result.mask[:, 16:] == white).all()


def test_tiles_of_a_coarse_output(tmp_path: Path) -> None:
    coarse, fine = Network(pool=4), Network()
    masks = []
    for index, network in enumerate((coarse, fine)):
        path = tmp_path / f"{index}.onnx"
        path.write_bytes(append_to_onnx(network.onnx(), network.spec(**FLOAT)))
        masks.append(Segmenter(path).tiled(halves(100, 80)).mask)
    assert (masks[0] == masks[1]).mean() > 0.95


REFUSED: dict[str, tuple[Network, dict[str, Any], dict[str, Any], str]] = {
    "layout": (Network(), {"layout": "nhwc"}, {}, r"input is float32\(batch, 3, 32, 32\), its spec says"),
    "type": (Network(), {"dtype": "uint8"}, {}, r"input is float32.*its spec says uint8"),
    "grey": (Network(), {"channels": "grey"}, {}, r"its spec says float32\('n', 1, 32, 32\)"),
    "output's layout": (Network(), {}, {"layout": "nhwc"}, r"output is float32\(batch, 3, 32, 32\)"),
    "output's size": (Network(pool=2), {}, {"height": 32, "width": 32}, r"output is float32\(batch, 3, 16, 16\)"),
    "output's name": (Network(), {}, {"name": "mask"}, "no output is named 'mask'.*expected one of (conv0/)?out"),
    "a mask of three": (Network(), {}, {"kind": "labels", "logits": False}, r"its spec says float32\('n', 32, 32\)"),
}


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_not_as_its_spec_says(name: str, backend: str, tmp_path: Path) -> None:
    network, source, result, message = REFUSED[name]
    spec = network.spec(**FLOAT)
    spec = replace(spec, input=replace(spec.input, **source), output=replace(spec.output, **result))
    path = tmp_path / "theirs.onnx"
    path.write_bytes(append_to_onnx(network.onnx(), spec))
    message = message.replace("batch", r"(batch|\?|1)").replace("its spec says float32\\('n', 32", ".*")
    with pytest.raises(ModelFileError, match=message):
        Segmenter(path, backend=backend)


def test_an_id_that_is_no_class(tmp_path: Path) -> None:
    network = Network(channels=4, activation="argmax")
    spec = network.spec(**FLOAT)
    spec = replace(spec, classes=spec.classes[:2])
    path = tmp_path / "theirs.onnx"
    path.write_bytes(append_to_onnx(network.onnx(), spec))
    with pytest.raises(BackendError, match="gives class id 3, its spec has 2 classes, 0 to 1"):
        Segmenter(path).infer(photos(1, network))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("input.dtype", "double", "input.dtype is 'double', expected one of uint8"),
        ("input.layout", "hwc", "input.layout is 'hwc'"),
        ("input.channels", "rgba", "input.channels is 'rgba'"),
        ("input.range", [1, 0], "input.range is .1, 0., expected two numbers"),
        ("input.range", "0..1", "input.range is '0..1'"),
        ("input.mean", [0.5], "input.mean is .0.5,., expected 3 numbers"),
        ("input.mean", [0.5, 0.5, "x"], "input.mean"),
        ("input.std", [0.5, 0.5, 0], "input.std is .*all above 0"),
        ("input.std", None, "input.std is None"),
        ("output.kind", "boxes", "output.kind is 'boxes'"),
        ("output.layout", 1, "output.layout is 1"),
        ("output.name", "a\nb", "output.name"),
        ("output.kind", "mask", "classes is 3, expected 2 of a mask"),
    ],
)
def test_a_spec_that_says_no_such_thing(path: str, value: object, message: str) -> None:
    data = json.loads(Network().spec(**MEAN).to_json())
    part, name = path.split(".")
    data[part][name] = value
    with pytest.raises(ModelFileError, match=message):
        ModelSpec.from_json(json.dumps(data))


def test_the_spec_travels(tmp_path: Path) -> None:
    spec = Network(second=True).spec(**MEAN)
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert not spec.is_plain
    own = replace(spec, input=InputSpec(32, 32), output=OutputSpec(32, 32))
    data = json.loads(own.to_json())
    for part, names in (("input", "dtype layout channels range mean std"), ("output", "kind layout name")):
        for name in names.split():
            del data[part][name]
    data["schema"] = 4
    assert ModelSpec.from_json(json.dumps(data)) == own
    assert own.is_plain


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_a_file_without_a_spec_says_what_to_type(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"theirs{suffix}"
    network = Network("nhwc")
    path.write_bytes(network.onnx() if suffix == ".onnx" else tflite(network))
    with pytest.raises(ModelFileError, match="not made by unet-export") as caught:
        Segmenter(path)
    assert caught.value.hint.startswith("unet-export adopt ")
    assert "\n" not in str(caught.value) + caught.value.hint
