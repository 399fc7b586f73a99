"""A foreign model's file or folder -> the Keras model that it holds, as it is.

Code runs only where the user names it (``--custom-objects``, ``--build``); code inside a file never does.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import re
import runpy
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from unet_export.errors import ExportError
from unet_export.foreign.saved_model import open_saved_model
from unet_export.source_model import avoid_tf32, import_keras, layers_of_code, refuse_other_content
from unet_runtime.core.errors import ModelFileError
from unet_runtime.core.text import one_line

logger = logging.getLogger(__name__)

SUFFIXES = (".keras", ".h5", ".hdf5")
"""Suffixes of model files; a SavedModel is a folder."""

_WEIGHTS = ".weights.h5"
_H5 = (".h5", ".hdf5")

_OTHERS = {
    ".onnx": "an ONNX file",
    ".tflite": "a TFLite file",
    ".pt": "a PyTorch file: export it there with torch.onnx",
    ".pth": "a PyTorch file: export it there with torch.onnx",
    ".pb": "a graph without its folder: name the SavedModel's folder; of a frozen graph of TensorFlow 1 make ONNX "
    "(python -m tf2onnx.convert --graphdef FILE.pb --inputs NAME:0 --outputs NAME:0 --output FILE.onnx)",
    ".json": "an architecture without weights: name a --build function that makes the model, and the weights' file",
}
"""Files that people have in place of a Keras model -> what they are."""

_UNKNOWN_CLASS = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown (?:layer|object|activation function|initializer)):? '?\"?([\w>]+)"
)
"""In Keras' complaints of several hundred letters: the one name that matters."""

_OPERATION_LAYERS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
"""Layers that Keras 2 made of TensorFlow calls, and that Keras 3 does not have."""

_IN_TRAINING = ("_initializer", "_regularizer", "_constraint", "trainable")
"""Ends of arguments of layers that matter where a model is made or trained."""

_BUILT_FROM = ("query_shape", "key_shape", "value_shape")
"""Arguments of attention that Keras 3 takes from what it is called on."""

_NO_MEANING = {"groups": 1, "noise_shape": None}
"""Arguments of layers -> the value with which they change nothing."""

_NESTED = ("Sequential", "Functional", "Model")
"""Classes of models inside a model."""

_CALL = 3
"""Items of a call in a model's description, at least: layer, number of the call, number of the output."""

_KERAS_2_MODULE = re.compile(r"(?:tf_keras|keras(?:\.src)?(?=\.engine\.))(?:(?:\.src)?\.engine\..*)?(.*)")
"""Modules of Keras 2: ``keras.src.engine.functional``, and ``tf_keras.layers`` for ``keras.layers``."""

_FUNCTIONAL = "keras.src.models.functional"
"""Where Keras 3 has the class of a model of layers."""

_CONFIGURATION = "config.json"

KERAS_2 = (
    "in an environment of its own, with the Keras that made it (pip install 'tf-keras'), write its weights "
    "(model.save_weights('model.weights.h5')), and name a --build function that makes the same network in Keras 3"
)
"""What to do with a file that Keras 3 cannot read."""


@dataclass(frozen=True)
class Code:
    """Python code that the user named, and that may therefore run."""

    custom_objects: Path | None = None
    """A file that defines the classes and functions that the model uses."""
    build: str = ""
    """``module:function`` or ``file.py:function``, which makes the model; its weights are then all that is read."""


def read_model(path: Path, code: Code) -> Any:
    """The ``keras.Model`` of a ``.keras`` or ``.h5`` file, of weights and a ``--build`` function, or of a SavedModel.

    Raises:
        ModelFileError: no such file or folder.
        ExportError: not readable: what was found, and what to do.
        OSError: no space to unpack the weights.
    """
    if not path.exists():
        raise ModelFileError(f"{path}: no such file or folder, expected a Keras model")
    import_keras()
    avoid_tf32()
    if code.custom_objects is not None:
        _register(code.custom_objects)
    if code.build:
        return _built(path, code.build)
    if path.is_dir():
        return open_saved_model(path)
    if path.name.endswith(_WEIGHTS):
        raise ExportError(
            f"{path}: weights without a model: name the function that makes it with --build module:function"
        )
    if path.suffix not in SUFFIXES:
        raise ExportError(
            f"{path}: {_OTHERS.get(path.suffix, f'suffix {path.suffix!r}')}, expected .keras, .h5, .weights.h5 with "
            "--build, or a SavedModel's folder; ONNX and TFLite files of others get a spec by unet-export adopt"
        )
    refuse_other_content(path)
    configuration = _configuration(path)
    refuse_code(path, configuration)
    if layers := sorted(set(_operation_layers(configuration))):
        raise ExportError(
            f"{path}: made by Keras 2, with {', '.join(layers)}, calls of TensorFlow that Keras 3 has no layers for: "
            + KERAS_2
        )
    return _loaded(path, configuration)


def refuse_code(path: Path, configuration: Any) -> None:
    """Raise ExportError, naming the layers that are Python code in a file: that is never run."""
    if code := sorted(layers_of_code(configuration)):
        raise ExportError(
            f"{path}: {', '.join(code)}: such a layer is code in the file, which is never run: build the model of "
            "Keras' own layers, or let a --build function of yours make it, so that the file gives its weights alone"
        )


# --- files -----------------------------------------------------------------------------------------


def _configuration(path: Path) -> Any:
    """The description of a model's layers; None where there is none: Keras says what is wrong with such a file."""
    try:
        if path.suffix in _H5:
            return _h5_configuration(path)
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(_CONFIGURATION))
    except (KeyError, ValueError, RecursionError, zipfile.BadZipFile):
        return None


def _h5_configuration(path: Path) -> Any:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            has_weights = "layer_names" in file.attrs or "layers" in file
    except OSError as error:
        raise ExportError(
            f"{path}: no HDF5 file, or half of one ({one_line(error)}): download or save it again"
        ) from error
    if text is None and has_weights:
        raise ExportError(
            f"{path}: weights without a model: name the function that makes it with --build module:function"
        )
    if text is None:
        raise ExportError(f"{path}: an HDF5 file without a Keras model: save it with model.save('model.keras')")
    return json.loads(text)


def _operation_layers(configuration: Any) -> Iterator[str]:
    for entry in _entries(configuration):
        if entry.get("class_name") in _OPERATION_LAYERS:
            name = entry.get("config", {}).get("name", "")
            yield f"{entry['class_name']} {name}".strip()


def _entries(configuration: Any) -> Iterator[dict[str, Any]]:
    """Every object of a description, at any depth."""
    waiting = [configuration]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, dict):
            yield entry
            waiting.extend(entry.values())
        elif isinstance(entry, list):
            waiting.extend(entry)


def _loaded(path: Path, configuration: Any) -> Any:
    keras = import_keras()
    if path.suffix == ".keras" and not _is_keras_archive(path):
        raise ExportError(
            f"{path}: no .keras file, which is a zip with a config.json: a pickle, a PyTorch file or half of one with "
            "another name? Save the model with model.save('model.keras')"
        )
    try:
        if not _modernise(configuration):
            return keras.models.load_model(path, compile=False)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            _write_copy(path, copy, json.dumps(configuration))
            return keras.models.load_model(copy, compile=False)
    except Exception as error:  # Keras raises whatever a layer's constructor raises
        if isinstance(error, OSError) and error.errno is not None:  # it unpacks the weights, and the disk is full
            raise
        raise ExportError(f"{path}: {_refusal(error, path)}") from error


def _is_keras_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return _CONFIGURATION in archive.namelist()
    except zipfile.BadZipFile:
        return False


def _modernise(configuration: Any) -> bool:
    """Change what Keras 2 writes of a model and Keras 3 refuses, though it means the same; True if there was any."""
    before = json.dumps(configuration)
    for entry in list(_entries(configuration)):
        kind, config, module = entry.get("class_name"), entry.get("config"), entry.get("module")
        if not isinstance(config, dict):
            continue
        if isinstance(module, str) and (found := _KERAS_2_MODULE.match(module)):
            entry["module"] = _FUNCTIONAL if kind == "Functional" else f"keras{found[1]}"
        for name in _meaningless(kind, config):
            del config[name]
            if name in _BUILT_FROM:
                entry.pop("build_config", None)
        if kind == "LeakyReLU" and "alpha" in config:
            config["negative_slope"] = config.pop("alpha")
        if kind == "BatchNormalization" and isinstance(config.get("axis"), list):
            (config["axis"],) = config["axis"]
        policy = config.get("dtype")
        if isinstance(policy, dict) and policy.get("class_name") == "Policy":
            config["dtype"] = policy["config"]["name"]
        if isinstance(config.get("layers"), list):
            _modernise_calls(config)
    return json.dumps(configuration) != before


def _meaningless(kind: Any, config: dict[str, Any]) -> list[str]:
    """Arguments of a layer that Keras 3 does not take, and whose values change nothing that it computes."""
    layer = getattr(import_keras().layers, str(kind), None)
    found = []
    for name in set(config) - _arguments(layer) if isinstance(layer, type) else ():
        if name in _BUILT_FROM or name.endswith(_IN_TRAINING) or config[name] == _NO_MEANING.get(name):
            found.append(name)
    return found


def _arguments(layer: type) -> set[str]:
    """What the constructor of a layer takes, with what it hands on to the classes that it is made of."""
    names: set[str] = set()
    for base in layer.__mro__:
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        names.update(parameter.name for parameter in parameters)
        if base is import_keras().Layer or not any(entry.kind is entry.VAR_KEYWORD for entry in parameters):
            break
    return names


def _modernise_calls(config: dict[str, Any]) -> None:
    """Write the calls of a model's layers as Keras 3 reads them, where Keras 2 wrote them.

    Keras 2 counts the call that made an inner model as its first, and hands tensors by name without marking them.
    """
    nodes = []
    for entry in config["layers"]:
        nodes += entry.get("inbound_nodes", ())
    if not nodes or not isinstance(nodes[0], list):
        return
    models = dict.fromkeys(_NESTED, ())
    for kind in models:
        models[kind] = tuple(entry.get("name") for entry in config["layers"] if entry.get("class_name") == kind)
    for call in _calls(nodes):
        call[1] -= any(call[0] in names for names in models.values())
    for call in _calls(config.get("output_layers")):  # Keras 3 does the same for the others
        call[1] -= call[0] in models["Sequential"]
    for name in ("input_layers", "output_layers"):
        if isinstance(config.get(name), list) and len(config[name]) == 1:
            (config[name],) = config[name]  # a tensor, no list of one
    for entry in config["layers"]:
        entry["inbound_nodes"] = list(map(_marked, entry.get("inbound_nodes", ())))


def _calls(entry: Any) -> Iterator[list[Any]]:
    """Every [layer, number of its call, number of the output, ...] in a description."""
    if isinstance(entry, list) and len(entry) >= _CALL and isinstance(entry[0], str):
        yield entry
    inner = entry.values() if isinstance(entry, dict) else entry
    for part in inner if isinstance(entry, (dict, list)) else ():
        yield from _calls(part)


def _marked(node: Any) -> Any:
    """The node as Keras 3 writes it, if it hands tensors by name; else as it is."""
    words: dict[str, Any] = {}
    for call in node:
        for part in call[_CALL:]:
            words |= part
    if not list(_calls(words)):
        return node
    places = [_tensor(call) for call in node]
    words = {name: _tensor(value) if list(_calls(value)) else value for name, value in words.items()}
    return {"args": places, "kwargs": words}


def _tensor(call: list[Any]) -> dict[str, Any]:
    history = {"shape": [None], "dtype": "float32", "keras_history": call[:_CALL]}  # Keras reads the last alone
    return {"class_name": "__keras_tensor__", "config": history}


def _write_copy(path: Path, copy: Path, configuration: str) -> None:
    """Write a model's file with another description of its layers."""
    import h5py

    if path.suffix in _H5:
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = configuration.encode()
        return
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for entry in source.infolist():
            if entry.filename == _CONFIGURATION:
                target.writestr(entry.filename, configuration)
                continue
            with source.open(entry) as content, target.open(entry.filename, "w", force_zip64=True) as written:
                shutil.copyfileobj(content, written)


def _whole_text(error: BaseException | None) -> str:
    """The messages of an error and of those that it came from."""
    found = []
    while error is not None:
        found.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(found)


def _refusal(error: Exception, path: Path) -> str:
    keras = import_keras()
    text = one_line(error)
    if unknown := sorted({name.rpartition(">")[2] for name in _UNKNOWN_CLASS.findall(_whole_text(error))}):
        return (
            f"{', '.join(unknown)}: a class or function that Keras {keras.__version__} does not have: name the Python "
            "file that defines it with --custom-objects FILE.py (which runs it)"
        )
    return f"Keras {keras.__version__} refuses it ({text}): if Keras 2 made it, {KERAS_2}; else save it again"


# --- code that the user named ----------------------------------------------------------------------


def _register(file: Path) -> None:
    """Run a Python file, and let Keras find the classes and functions that it defines."""
    logger.info("running %s, which --custom-objects names", file)
    found = _run(file)
    named = found.get("CUSTOM_OBJECTS", found.get("custom_objects"))
    if not isinstance(named, dict):
        named = {}
        for name, value in found.items():
            if isinstance(value, (type, FunctionType)) and not name.startswith("_"):
                named[name] = value
    if not named:
        raise ExportError(f"{file}: defines no class or function, expected those that the model uses")
    import_keras().saving.get_custom_objects().update(named)


def _run(file: Path) -> dict[str, Any]:
    """The names that a Python file defines; modules beside it can be imported by it."""
    if not file.is_file():
        raise ExportError(f"{file}: no such file, expected Python code")
    _look_in(file.absolute().parent)
    try:
        return runpy.run_path(str(file), run_name=file.stem)
    except Exception as error:  # whatever it does
        raise ExportError(f"{file}: raises {type(error).__name__} ({one_line(error)}): correct it") from error


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _built(path: Path, build: str) -> Any:
    """The model that a function makes, with the weights of a file."""
    function = _function(build)
    keras = import_keras()
    logger.info("running %s, which --build names", build)
    try:
        model = function()
    except Exception as error:  # whatever it does
        raise ExportError(
            f"--build {build}: raises {type(error).__name__} ({one_line(error)}), expected a function that is called "
            "without arguments"
        ) from error
    if not isinstance(model, keras.Model):
        raise ExportError(f"--build {build}: returns {type(model).__name__}, expected a keras.Model")
    if path.is_dir():
        raise ExportError(f"{path}: a folder, expected the weights' file of the model that --build makes")
    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises whatever reading raises
        raise ExportError(
            f"{path}: its weights do not fit the model that {build} makes ({one_line(error)}): expected the same "
            "layers in the same order as where the weights were saved"
        ) from error
    return model


def _function(build: str) -> Callable[[], Any]:
    place, _, name = build.rpartition(":")
    if not place or not name.isidentifier():
        raise ExportError(f"--build {build!r}, expected module:function or file.py:function")
    if place.endswith(".py"):
        names = _run(Path(place))
        if name not in names:
            raise ExportError(f"--build {build}: {place} has no function {name}")
        function = names[name]
    else:
        _look_in(Path.cwd())
        try:
            function = getattr(importlib.import_module(place), name)
        except Exception as error:  # whatever importing it does
            raise ExportError(
                f"--build {build}: cannot be imported ({one_line(error)}): name a module that is found from here, or "
                "file.py:function"
            ) from error
    if not callable(function):
        raise ExportError(f"--build {build}: is no function")
    found: Callable[[], Any] = function
    return found
