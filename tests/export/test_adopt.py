"""unet-export adopt: what a file says is read, what it does not say is asked for, and what is said is measured."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from tests.helpers import discs
from tests.helpers.foreign import IMAGENET, SIDE, Network, tflite
from tests.helpers.paths import REPOSITORY
from unet_export.adopt.adopt import ADOPTION_GATES, Evidence, adopt
from unet_export.adopt.describe import Choices, UnknownError
from unet_export.adopt.engine import RawModel
from unet_export.adopt.measure import alternatives
from unet_export.adopt.reader import read
from unet_export.cli.command import command
from unet_export.errors import ExportError
from unet_export.foreign.load import parse_classes
from unet_export.formats import onnx_optimizers
from unet_export.formats.onnx_model import load_onnx
from unet_export.gate.gate import ParityError
from unet_runtime import Segmenter
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.errors import OutputError, UnetRuntimeError
from unet_runtime.core.spec import InputSpec

TORCH = REPOSITORY / "tests" / "data" / "torch-unet.onnx"
RECORDED = TORCH.with_suffix(".npz")

THREE = parse_classes("background,pet,border")
TWO = parse_classes("background,pet")
DISCS = parse_classes("background,red,blue")
FLOAT = {"range": (0.0, 1.0), "channels": "rgb"}
TORCH_CHOICES = Choices(classes=DISCS, range=(0.0, 1.0), channels="rgb", mean=IMAGENET[0], std=IMAGENET[1])


def written(folder: Path, network: Network, name: str = "theirs.onnx") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(network.onnx() if path.suffix == ".onnx" else tflite(network))
    return path


def edited(path: Path, **metadata: str) -> Path:
    proto = onnx.load(path)
    helper.set_model_props(proto, metadata)
    onnx.save(proto, path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return discs.folder(tmp_path_factory.mktemp("discs") / "data", 10, 500)


# --- what is read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
@pytest.mark.parametrize(
    ("network", "classes"),
    [
        (Network("nhwc", activation="softmax"), THREE),
        (Network("nhwc"), THREE),
        (Network("nhwc", channels=1, activation="sigmoid"), TWO),
        (Network("nhwc", channels=1), TWO),
        (Network("nhwc", activation="argmax"), THREE),
        (Network("nhwc", channels=4, activation="sigmoid"), parse_classes("background,a,b,c")),
    ],
)
def test_the_output_is_read_from_the_file(network: Network, classes: Any, suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path, network, f"theirs{suffix}")
    made = adopt(path, Choices(classes=classes, **FLOAT), tmp_path / "out")
    assert made.path.name == f"theirs-32.float32{suffix}"
    expected = network.spec(range=(0.0, 1.0))
    assert made.spec.input == expected.input
    assert made.spec.output == expected.output
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    np.testing.assert_allclose(Segmenter(made.path).infer(images), network.expected(images, made.spec.input), atol=2e-5)
    assert read_artifact(made.path).spec == made.spec


@pytest.mark.parametrize(
    "network",
    [
        Network(),
        Network(pool=4),
        Network(enlarge=2, activation="softmax"),
        Network(batch=2),
        Network(dtype="uint8", activation="softmax"),
        Network(dtype="float16"),
        Network(size=(16, 48)),
        Network(activation="argmax", keepdims=True),
    ],
)
def test_layout_sizes_and_types_of_onnx(network: Network, tmp_path: Path) -> None:
    choices = Choices(classes=THREE, **FLOAT)
    if network.dtype == "uint8":
        choices = replace(choices, range=None)
    made = adopt(written(tmp_path, network), choices, tmp_path / "out")
    expected = network.spec(range=(0.0, 255.0) if network.dtype == "uint8" else (0.0, 1.0))
    assert (made.spec.input, made.spec.output) == (expected.input, expected.output)
    assert made.spec.precision == ("float16" if network.dtype == "float16" else "float32")


def test_all_that_is_unknown_is_asked_for_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnknownError) as caught:
        adopt(written(tmp_path, Network(size=("h", "w"))), Choices(), tmp_path / "out")
    for option in ("--classes", "--range", "--channels", "--size"):
        assert option in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("network", "choices", "named"),
    [
        (Network(size=(3, 3)), {"classes": THREE, **FLOAT}, "--layout nchw or nhwc"),
        (Network(second=True), {"classes": THREE, **FLOAT}, "--output-name"),
        (Network(), {"range": (0.0, 1.0), "channels": "rgb"}, "--classes"),
        (Network(), {"classes": THREE, "range": (0.0, 1.0)}, "--channels rgb or bgr"),
        (Network(dtype="uint8"), {"classes": THREE}, "--channels rgb or bgr"),
    ],
)
def test_each_unknown_names_its_option(network: Network, choices: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownError, match=named) as caught:
        adopt(written(tmp_path, network), Choices(**choices), tmp_path / "out")
    assert len(caught.value.unknown) == 1


def test_the_named_output_is_taken(tmp_path: Path) -> None:
    network = Network(second=True, activation="softmax")
    path = written(tmp_path, network)
    made = adopt(path, Choices(classes=THREE, output_name="out", **FLOAT), tmp_path / "out")
    assert (made.spec.output.name, made.spec.output.logits) == ("out", False)
    made = adopt(path, Choices(classes=THREE, output_name="aux", **FLOAT), tmp_path / "out")
    assert (made.spec.output.name, made.spec.output.logits) == ("aux", True)
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [
        "README.md",
        "parity.json",
        "theirs-32.float32.onnx",
    ]


CONTRADICTIONS: dict[str, tuple[Network, dict[str, Any], str]] = {
    "classes": (Network(), {"classes": TWO}, r"gives 3 channels .*2 classes were named \(background, pet\)"),
    "one channel": (Network(channels=1), {"classes": THREE}, "1 channels.*of one channel there are two classes"),
    "activation": (Network(activation="softmax"), {"activation": "sigmoid"}, "softmax by its last operator"),
    "probabilities that are none": (
        Network(),
        {"activation": "softmax"},
        "is not as described.*expected probabilities",
    ),
    "size": (Network(), {"size": (64, 64)}, "takes 32x32 pixels, --size says 64, 64: leave it out"),
    "layout": (Network(), {"layout": "nhwc"}, "takes 32 channels.*--layout nhwc is not what it has"),
    "grey": (Network(), {"channels": "grey"}, "takes three channels, not grey"),
    "colour": (Network(depth=1), {"channels": "rgb"}, "takes one channel"),
    "mean": (Network(), {"mean": (0.5, 0.5)}, "--mean has 2 numbers, expected 3"),
    "std": (Network(), {"std": (0.0,)}, "input.std is"),
    "output": (Network(), {"output_name": "mask"}, "no output 'mask', expected one of out"),
    "softmax of one": (Network(channels=1), {"classes": TWO, "activation": "softmax"}, "softmax over its one channel"),
    "mask's order": (
        Network(channels=1),
        {"classes": parse_classes("pet:foreground,background")},
        "name the background first: --classes background,pet",
    ),
    "name": (Network(), {"name": "../theirs"}, "expected one without folders"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_what_contradicts_the_file(name: str, tmp_path: Path) -> None:
    network, choices, message = CONTRADICTIONS[name]
    with pytest.raises(ExportError, match=message):
        adopt(written(tmp_path, network), Choices(**{"classes": THREE, **FLOAT, **choices}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- what cannot be adopted ------------------------------------------------------------------------


def simple(path: Path, nodes: list[Any], outputs: list[Any], **settings: Any) -> Path:
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "theirs", [source], outputs, settings.pop("weights", []))
    settings.setdefault("opset_imports", [helper.make_opsetid("", 17)])
    settings.setdefault("ir_version", 8)
    onnx.save(helper.make_model(graph, **settings), path)
    return path


def test_a_classifier_is_no_map(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    path = simple(tmp_path / "a.onnx", nodes, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])])
    with pytest.raises(ExportError, match=r"gives y float32\(1, 3\), none of which is a map"):
        adopt(path, Choices(classes=THREE, **FLOAT), tmp_path / "out")


def test_pictures_that_no_memory_holds_and_maps_of_true_and_false(tmp_path: Path) -> None:
    choices = Choices(classes=THREE, activation="logits", **FLOAT)
    for batch, side, message in ((1, 100_000, "takes 100000, 100000 pixels, at most 16384"), (10**9, 8, "one")):
        source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side])
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3, side, side])
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "large", [source], [result])
        onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "large.onnx")
        with pytest.raises(ExportError, match=message):
            adopt(tmp_path / "large.onnx", choices, tmp_path / "out")
    out = [helper.make_tensor_value_info("y", TensorProto.BOOL, [1, 3, SIDE, SIDE])]
    nodes = [helper.make_node("Greater", ["x", "x"], ["y"])]
    with pytest.raises(ExportError, match="true or false: export it with probabilities"):
        adopt(simple(tmp_path / "bool.onnx", nodes, out), choices, tmp_path / "out")


def test_custom_operators_and_opsets_of_the_future(tmp_path: Path) -> None:
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, SIDE, SIDE])]
    nodes = [helper.make_node("NonLocal", ["x"], ["y"], domain="mmcv")]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mmcv", 1)]
    path = simple(tmp_path / "a.onnx", nodes, out, opset_imports=imports)
    with pytest.raises(ExportError, match=r"custom operators mmcv\.NonLocal"):
        read(path)
    inner = helper.make_graph(nodes, "branch", [], out)
    branches = [helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)]
    with pytest.raises(ExportError, match=r"custom operators mmcv\.NonLocal"):
        read(simple(tmp_path / "branch.onnx", branches, out, opset_imports=imports))
    nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=1)]
    path = simple(tmp_path / "b.onnx", nodes, out, opset_imports=[helper.make_opsetid("", 99)])
    with pytest.raises(ExportError, match=r"opset 99, .*export it with an older opset"):
        read(path)
    path = simple(tmp_path / "c.onnx", nodes, out, ir_version=99)
    with pytest.raises(ExportError, match=r"refuses it .*IR version: 99.*export it with an older opset or IR version"):
        RawModel(read(path))


def external(path: Path, location: str) -> Path:
    proto = onnx.load_from_string(Network().onnx())
    tensor = next(entry for entry in proto.graph.initializer if entry.name == "kernel")
    (path.parent / "weights.bin").write_bytes(numpy_helper.to_array(tensor).tobytes())
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    path.write_bytes(proto.SerializeToString())
    return path


def test_weights_beside_the_model_are_taken_in(tmp_path: Path) -> None:
    path = external(tmp_path / "theirs.onnx", "weights.bin")
    made = adopt(path, Choices(classes=THREE, **FLOAT), tmp_path / "out")
    (tmp_path / "weights.bin").unlink()
    images = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    expected = Network().expected(images, made.spec.input)
    np.testing.assert_allclose(Segmenter(made.path).infer(images), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("location", "message"),
    [("a\0b", "no file's name"), ("x" * 5000, "no file's name"), ("short.bin", "have 4 bytes, expected 36: copy them")],
)
def test_weights_under_names_that_are_none_or_too_short(location: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "short.bin").write_bytes(bytes(36))
    path = external(tmp_path / "theirs.onnx", location)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        if tensor.external_data and location == "short.bin":
            entry = tensor.external_data.add()
            entry.key, entry.value = "length", "4"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ExportError, match=message):
        read(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "link.bin", "absent.bin"])
def test_weights_elsewhere_are_not_read(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(36))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ExportError, match=r"outside of its own folder|not beside it"):
        read(external(folder / "theirs.onnx", location))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.onnx", b"", "no ONNX model"),
        ("a.onnx", b"\x08\x08text that is none", "no ONNX model"),
        ("a.tflite", b"", "no TensorFlow Lite model"),
        ("a.tflite", b"\x20\x00\x00\x00TFL3" + bytes(60), "no TensorFlow Lite model"),
        ("a.pt", b"PK", r"suffix '\.pt', expected \.onnx or \.tflite: export it with torch\.onnx\.export"),
        ("a.h5", b"", "unet-export"),
        ("absent.onnx", None, "no such model file"),
    ],
)
def test_no_model(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnetRuntimeError, match=message):
        read(tmp_path / name)


def test_custom_and_flex_operators_of_tflite(tmp_path: Path) -> None:
    from unet_export.formats.flatbuffer import Flatbuffer

    kinds = (
        ("FlexErf", "Flex operators FlexErf"),
        ("Bias", "custom operators Bias"),
        ("Convolution2DTransposeBias", "custom operators Convolution2DTransposeBias"),  # without its options
    )
    for code, message in kinds:
        flatbuffer = Flatbuffer(tflite(Network("nhwc")))
        entry = flatbuffer.model.operatorCodes[0]
        entry.builtinCode = entry.deprecatedBuiltinCode = 32  # CUSTOM
        entry.customCode = code.encode()
        path = tmp_path / "theirs.tflite"
        path.write_bytes(flatbuffer.pack())
        with pytest.raises(ExportError, match=message):
            read(path)


# --- metadata --------------------------------------------------------------------------------------


def test_metadata_of_ultralytics(tmp_path: Path) -> None:
    names = str(dict(enumerate(["background", "pet", "border"])))
    path = edited(written(tmp_path, Network()), author="Ultralytics", names=names, imgsz="[32, 32]", license="AGPL-3.0")
    made = adopt(path, Choices(), tmp_path / "out")
    assert made.spec.class_names == ("background", "pet", "border")
    assert (made.spec.input.range, made.spec.input.channels, made.spec.input.fit) == ((0.0, 1.0), "rgb", "letterbox")
    assert made.spec.license == "AGPL-3.0"


def test_files_of_hugging_face_beside_the_model(tmp_path: Path) -> None:
    path = written(tmp_path / "onnx", Network(size=("h", "w")))
    (tmp_path / "config.json").write_text('{"id2label": {"0": "background", "1": "pet", "2": "border"}}')
    settings = {
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "image_mean": IMAGENET[0],
        "image_std": IMAGENET[1],
        "size": {"height": SIDE, "width": SIDE},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    made = adopt(path, Choices(), tmp_path / "out")
    assert made.spec.class_names == ("background", "pet", "border")
    assert (made.spec.input.mean, made.spec.input.std, made.spec.input.range) == (*IMAGENET, (0.0, 1.0))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UnknownError, match="--classes"):
        adopt(path, Choices(), tmp_path / "out")


def with_metadata(content: bytes, *, mean: float, std: float) -> bytes:
    """A ``.tflite`` as MediaPipe's: a metadata buffer with an image input, normalised, and a label file."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    from unet_export.formats.flatbuffer import Flatbuffer

    builder = flatbuffers.Builder(0)

    def table(count: int, **slots: Any) -> int:
        builder.StartObject(count)
        for name, (kind, value) in slots.items():
            number = int(name[1:])
            if kind == "byte":
                builder.PrependByteSlot(number, value, 0)
            else:
                builder.PrependUOffsetTRelativeSlot(number, value, 0)
        return builder.EndObject()

    def vector(items: list[int]) -> int:
        builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            builder.PrependUOffsetTRelative(item)
        return builder.EndVector()

    def floats(value: float) -> int:
        builder.StartVector(4, 1, 4)
        builder.PrependFloat32(value)
        return builder.EndVector()

    offset = "offset"
    normalisation = table(2, _0=(offset, floats(mean)), _1=(offset, floats(std)))
    unit = table(2, _0=("byte", 1), _1=(offset, normalisation))
    image = table(2, _0=("byte", 1))
    image_content = table(3, _0=("byte", 2), _1=(offset, image))
    source = table(7, _3=(offset, image_content), _4=(offset, vector([unit])))
    name = builder.CreateString("labels.txt")
    result = table(7, _6=(offset, vector([table(5, _0=(offset, name), _2=("byte", 2))])))
    graph = table(10, _2=(offset, vector([source])), _3=(offset, vector([result])))
    license_text = builder.CreateString("Apache-2.0")
    builder.Finish(table(8, _3=(offset, vector([graph])), _5=(offset, license_text)), file_identifier=b"M001")
    flatbuffer = Flatbuffer(content)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(bytes(builder.Output()), np.uint8)
    flatbuffer.model.buffers.append(buffer)
    entry.name, entry.buffer = b"TFLITE_METADATA", len(flatbuffer.model.buffers) - 1
    flatbuffer.model.metadata = [entry]
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(flatbuffer.model))


def test_metadata_of_tensorflow_lite(tmp_path: Path) -> None:
    path = tmp_path / "selfie.tflite"
    path.write_bytes(with_metadata(tflite(Network("nhwc", activation="softmax")), mean=127.5, std=127.5))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "background\nperson\nsky\n")
    made = adopt(path, Choices(), tmp_path / "out")
    assert made.spec.class_names == ("background", "person", "sky")
    assert (made.spec.input.range, made.spec.input.channels) == ((-1.0, 1.0), "rgb")
    assert made.spec.license == "Apache-2.0"
    with zipfile.ZipFile(made.path) as archive:
        assert archive.namelist() == ["labels.txt", "unet_edge.json"]
    assert Segmenter(made.path).spec == made.spec
    again = adopt(made.path, Choices(name="selfie"), tmp_path / "again")
    assert again.path.read_bytes() == made.path.read_bytes()


def test_damaged_metadata_is_asked_for(tmp_path: Path) -> None:
    content = bytearray(with_metadata(tflite(Network("nhwc", activation="softmax")), mean=127.5, std=127.5))
    at = content.index(b"M001")
    content[at + 4 : at + 60] = bytes([255]) * 56
    path = tmp_path / "selfie.tflite"
    path.write_bytes(content)
    with pytest.raises(UnknownError, match="--classes"):
        adopt(path, Choices(), tmp_path / "out")


def test_a_file_of_others_in_its_place_stays(tmp_path: Path) -> None:
    path, out = written(tmp_path, Network()), tmp_path / "out"
    choices = Choices(classes=THREE, **FLOAT)
    made = adopt(path, choices, out)
    adopt(path, choices, out)
    made.path.write_bytes(path.read_bytes())  # the file itself, without a spec
    with pytest.raises(OutputError, match="exists, and was not made by unet-export"):
        adopt(path, choices, out)
    with pytest.raises(OutputError, match="is read in this run"):
        adopt(made.path, replace(choices, name=made.spec.name), out, overwrite=True)
    assert made.path.read_bytes() == path.read_bytes()


# --- measured and proven ---------------------------------------------------------------------------


def test_a_unet_of_torch_is_proven_and_measured(photos: Path, tmp_path: Path) -> None:
    """NCHW, mean and std outside, logits: beside what PyTorch itself gave for the same photos."""
    made = adopt(TORCH, TORCH_CHOICES, tmp_path, Evidence(data=photos, reference=RECORDED))
    assert made.result.passed
    assert ADOPTION_GATES["float32"].max_abs == 1e-4
    for proof in made.proofs:
        assert proof.raw < 1e-4
        assert proof.pictures == 2
    assert made.measurement is not None
    assert made.measurement.mean_iou > 0.98
    report = json.loads((tmp_path / "parity.json").read_text())
    assert report["passed"]
    picture, labels = discs.draw(900)
    assert (Segmenter(made.path)(picture).mask == labels).mean() > 0.98


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": "bgr"},
        {"mean": None, "std": None},
        {"range": (0.0, 255.0)},
        {"classes": parse_classes("blue,red,background")},
    ],
)
def test_a_wrong_description_shows_at_once(wrong: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UnetRuntimeError) as caught:
        adopt(TORCH, replace(TORCH_CHOICES, **wrong), tmp_path / "out", Evidence(data=photos))
    assert caught.value.exit_code == 4
    assert not (tmp_path / "out").exists()
    if "classes" in wrong:  # which no numbers show
        return
    with pytest.raises(ParityError) as failed:
        adopt(TORCH, replace(TORCH_CHOICES, **wrong), tmp_path / "out", Evidence(reference=RECORDED))
    assert failed.value.results[0].failures


def test_what_is_unknown_is_suggested_by_the_photos(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownError) as caught:
        adopt(TORCH, Choices(classes=DISCS), tmp_path / "out", Evidence(data=photos))
    assert "--channels rgb --range 0..1 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225" in str(caught.value)


def test_alternatives_are_never_what_is_given() -> None:
    for given in (
        InputSpec(32, 32, dtype="float32", range=(0.0, 1.0), mean=IMAGENET[0], std=IMAGENET[1]),
        InputSpec(32, 32, dtype="float32", channels="grey"),
        InputSpec(32, 32),
    ):
        found = list(alternatives(given))
        assert given not in found
        assert len(set(found)) == len(found)
    assert [other.channels for other in alternatives(InputSpec(32, 32))] == ["bgr"]


def test_the_models_own_tensor_is_a_reference_too(tmp_path: Path) -> None:
    network = Network()
    path = written(tmp_path, network)
    spec = network.spec(range=(0.0, 1.0))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    kernel, bias = network.weights()
    tensor = (images / 255).astype(np.float32)
    logits = (tensor @ kernel.T + bias).transpose(0, 3, 1, 2)
    np.savez(tmp_path / "own.npz", inputs=tensor.transpose(0, 3, 1, 2), outputs=logits)
    made = adopt(path, Choices(classes=THREE, **FLOAT), tmp_path / "out", Evidence(reference=tmp_path / "own.npz"))
    assert made.result.passed
    assert made.spec.output == spec.output
    np.savez(
        tmp_path / "own.npz", inputs=tensor.transpose(0, 3, 1, 2), outputs=logits + rng.normal(0, 0.1, logits.shape)
    )
    with pytest.raises(ParityError, match="too different from"):
        adopt(path, Choices(classes=THREE, **FLOAT), tmp_path / "out", Evidence(reference=tmp_path / "own.npz"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, "holds a, expected the arrays inputs and outputs"),
        ({"inputs": np.zeros((2, 3, 8, 8)), "outputs": np.zeros((2, 3, 8, 8))}, r"inputs are float64\(2, 3, 8, 8\)"),
        (
            {"inputs": np.zeros((1, 3, 32, 32)), "outputs": np.zeros((1, 2, 32, 32))},
            r"outputs are float64\(1, 2, 32, 32\)",
        ),
        ({"inputs": np.zeros((2, 3, 32, 32)), "outputs": np.zeros((1, 3, 32, 32))}, "2 inputs and 1 outputs"),
        ({"inputs": np.array([{}], object), "outputs": np.zeros(1)}, "no recorded arrays"),
        (None, "no recorded arrays"),
    ],
)
def test_no_reference(arrays: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    if arrays is None:
        path.write_bytes(b"no zip")
    else:
        np.savez(path, **arrays)
    with pytest.raises(ExportError, match=message):
        adopt(written(tmp_path, Network()), Choices(classes=THREE, **FLOAT), tmp_path / "out", Evidence(reference=path))


def test_a_twin_in_another_format(tmp_path: Path) -> None:
    """The same weights: NCHW as ONNX, NHWC as TFLite."""
    one = written(tmp_path, Network())
    other = written(tmp_path, Network("nhwc"), "theirs.tflite")
    choices = Choices(classes=THREE, **FLOAT)
    assert adopt(one, choices, tmp_path / "out", Evidence(reference=other)).result.passed
    assert adopt(other, choices, tmp_path / "out", Evidence(reference=one)).result.passed
    stranger = written(tmp_path / "b", Network("nhwc", activation="softmax"), "other.tflite")
    with pytest.raises(ExportError, match="one of the two gives probabilities, the other logits"):
        adopt(one, choices, tmp_path / "out", Evidence(reference=stranger))


def test_files_of_others_and_the_model_itself_are_not_replaced(tmp_path: Path) -> None:
    path = written(tmp_path, Network())
    choices = Choices(classes=THREE, **FLOAT)
    (tmp_path / "out").mkdir()
    others = tmp_path / "out" / "theirs-32.float32.onnx"
    others.write_bytes(b"of others")
    with pytest.raises(OutputError):
        adopt(path, choices, tmp_path / "out")
    assert others.read_bytes() == b"of others"
    made = adopt(path, choices, tmp_path / "out", overwrite=True)
    assert adopt(path, choices, tmp_path / "out").path == made.path
    content = made.path.read_bytes()
    with pytest.raises(OutputError):
        adopt(made.path, replace(choices, name="theirs"), tmp_path / "out", overwrite=True)
    assert made.path.read_bytes() == content


def test_the_command(tmp_path: Path) -> None:
    path = written(tmp_path, Network("nhwc", channels=1, activation="sigmoid"))
    words = ["adopt", str(path), "--range", "0..1", "--channels", "rgb", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(command, [*words, "--classes", "pet"])
    assert done.exit_code == 0, done.output
    assert "not proven: no --reference was given" in done.stdout
    assert done.stdout.splitlines()[-1] == f"adopted: {tmp_path / 'out' / 'theirs-32.float32.onnx'}"
    assert Segmenter(tmp_path / "out" / "theirs-32.float32.onnx").spec.class_names == ("background", "pet")
    for wrong in (["--range", "1..0"], ["--mean", "a,b"], ["--channels", "rgba"], ["--size", "x"]):
        assert CliRunner().invoke(command, [*words, *wrong]).exit_code == 2
    caffe = ["adopt", str(path), "--classes", "pet", "--preprocess", "caffe", "-o", str(tmp_path / "caffe")]
    assert CliRunner().invoke(command, caffe).exit_code == 0
    source = Segmenter(tmp_path / "caffe" / "theirs-32.float32.onnx").spec.input
    assert (source.channels, source.mean) == ("bgr", (103.939, 116.779, 123.68))
    made = json.loads(CliRunner().invoke(command, [*words, "--classes", "pet", "--json"]).stdout)
    assert made["spec"]["output"]["kind"] == "mask"


def test_a_keras_model_proves_a_file_made_of_it(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    image = keras.Input((32, 32, 3), batch_size=1)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    model = keras.Model(image, keras.layers.Conv2D(2, 1, activation="softmax")(x))
    model.save(tmp_path / "theirs.keras")
    (tmp_path / "theirs.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    choices = Choices(classes=parse_classes("background,pet"), range=(0.0, 1.0), channels="rgb", activation="softmax")
    made = adopt(tmp_path / "theirs.tflite", choices, tmp_path / "out", Evidence(reference=tmp_path / "theirs.keras"))
    (proof,) = made.proofs
    assert proof.result.failures == ()
    assert proof.raw < 1e-6
    model.layers[-1].bias.assign([0.5, 0.0])
    model.save(tmp_path / "theirs.keras")
    with pytest.raises(ParityError):
        adopt(tmp_path / "theirs.tflite", choices, tmp_path / "other", Evidence(reference=tmp_path / "theirs.keras"))


@pytest.mark.parametrize(("padding", "kernel", "side"), [("same", 2, 32), ("same", 3, 32), ("valid", 3, 33)])
def test_mediapipes_transposed_convolution(padding: str, kernel: int, side: int, tmp_path: Path) -> None:
    """Its files end with a custom operator that LiteRT's own computes by now."""
    from unet_export.formats.flatbuffer import Flatbuffer

    keras.utils.set_random_seed(1)
    image = keras.Input((side, side, 3), batch_size=1)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(image)
    x = keras.layers.Conv2DTranspose(1, kernel, strides=2, padding=padding, bias_initializer="ones")(x)
    if padding == "valid":
        x = keras.layers.Cropping2D(((1, 1), (1, 1)))(x)
    model = keras.Model(image, keras.layers.Activation("sigmoid")(x))
    model.save(tmp_path / "theirs.keras")
    flatbuffer = Flatbuffer(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    (place,) = (index for index, entry in enumerate(flatbuffer.operators) if entry.kind == "TRANSPOSE_CONV")
    operator = flatbuffer.graph.operators[place]
    _, weights, source, bias = operator.inputs
    code = flatbuffer.model.operatorCodes[operator.opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = 32  # CUSTOM
    code.customCode, code.version = b"Convolution2DTransposeBias", 1
    operator.inputs, operator.builtinOptionsType, operator.builtinOptions = [source, weights, bias], 0, None
    operator.customOptions = np.frombuffer(
        np.array([1 if padding == "same" else 2, 2, 2], np.int32).tobytes(), np.uint8
    )
    (tmp_path / "theirs.tflite").write_bytes(flatbuffer.pack())
    choices = Choices(classes=parse_classes("pet"), range=(0.0, 1.0), channels="rgb")
    made = adopt(tmp_path / "theirs.tflite", choices, tmp_path / "out", Evidence(reference=tmp_path / "theirs.keras"))
    (proof,) = made.proofs
    assert proof.result.failures == ()
    assert proof.raw < 1e-6


# --- optimisers that are wrong ---------------------------------------------------------------------


def pooled(path: Path) -> Path:
    """Zeros around a map that is negative, then max pooling: what Pad_Fusion of ONNX Runtime gets wrong."""
    kernel = np.zeros((2, 3, 1, 1), np.float32)
    kernel[0], kernel[1] = -1, -2
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["negative"], name="conv"),
        helper.make_node("Pad", ["negative", "pads"], ["padded"], name="pad"),
        helper.make_node("MaxPool", ["padded"], ["y"], name="pool", kernel_shape=[3, 3], strides=[2, 2]),
    ]
    constants = [
        numpy_helper.from_array(kernel, "kernel"),
        numpy_helper.from_array(np.array([-1, -0.5], np.float32), "bias"),
        numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "pads"),
    ]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, SIDE // 2, SIDE // 2])
    graph = helper.make_graph(nodes, "pooled", [source], [result], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_optimiser_that_is_wrong_is_found_and_left_out(tmp_path: Path) -> None:
    """The spec names it, the runtime obeys, and what is made of the file is right, too."""
    model = pooled(tmp_path / "pooled.onnx")
    made = adopt(model, Choices(classes=TWO, activation="logits", **FLOAT), tmp_path / "out")
    assert made.spec.disabled_optimizers == ("Pad_Fusion",)
    assert ("disabled optimizers", "Pad_Fusion", "measured: ONNX Runtime is wrong with them") in made.rows
    white = np.full((1, SIDE, SIDE, 3), 255, np.uint8)
    logits = Segmenter(made.path, backend="onnx").backend.run(white)
    np.testing.assert_array_equal(logits[0, 0], 0)  # zeros of the padding are more than -4 and -6.5
    np.testing.assert_allclose(logits[0, 5, 5], [-4, -6.5])
    source, _ = load_onnx(made.path)
    session = onnxruntime.InferenceSession(source.graph.SerializeToString(), providers=["CPUExecutionProvider"])
    probabilities = session.run(None, {"image": white})[0]
    np.testing.assert_allclose(probabilities[0, 0], 0.5)


def test_all_are_left_out_where_none_of_those_known_is_to_blame(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(onnx_optimizers, "OPTIMIZERS", ("ConvAddFusion", "NotThere"))
    made = adopt(pooled(tmp_path / "pooled.onnx"), Choices(classes=TWO, activation="logits", **FLOAT), tmp_path / "out")
    assert made.spec.disabled_optimizers == ("all",)
    white = np.full((1, SIDE, SIDE, 3), 255, np.uint8)
    np.testing.assert_array_equal(Segmenter(made.path, backend="onnx").backend.run(white)[0, 0], 0)


def test_two_culprits_are_both_found() -> None:
    calls: list[tuple[str, ...]] = []

    def is_right(disabled: Any) -> bool:
        calls.append(tuple(disabled))
        return {"c", "g"} <= set(disabled)

    assert onnx_optimizers._smallest(is_right, (), tuple("abcdefgh")) == ("c", "g")
    assert len(calls) < 16
