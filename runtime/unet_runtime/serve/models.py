"""The models of a service: which files there are, by name and version, and each of them loaded and tried."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import BackendError, ModelFileError, UnetRuntimeError
from unet_runtime.core.spec import ModelSpec
from unet_runtime.engines import ENGINES
from unet_runtime.io.jobs import Pool, models_to_load
from unet_runtime.segmenter import Segmenter
from unet_runtime.serve.batches import Batches
from unet_runtime.serve.browser_page import find_page
from unet_runtime.serve.refusals import NOT_FOUND, RefusalError

logger = logging.getLogger(__name__)

FIRST_VERSION = "1"

Images = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]
Load = Callable[[Path | None, int | None], Segmenter]
"""``load(file, threads)``; no file: the bundled model."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Named(NamedTuple):
    """A model file and the name that clients call it by."""

    name: str
    """Empty: the name in the file's spec."""
    version: str
    path: Path | None
    """None: the bundled model."""


def find_models(given: Iterable[str]) -> list[Named]:
    """Read what ``--model`` says.

    Args:
        given: each ``PATH`` or ``NAME=PATH``. A path is a model file; a folder of numbered folders, each with one
            model file: its versions; a folder of such folders, as Triton and OpenVINO Model Server have it; or a
            folder of model files, which are named after their files. None at all: the bundled model.

    Raises:
        ModelFileError: a name that cannot be one, no such file, or a folder without models.
    """
    found = []
    for text in given:
        name, path = _split(text)
        if not path.exists():
            raise ModelFileError(f"{path}: no such file or folder, expected a model or a folder of models")
        found += _in_folder(name, path) if path.is_dir() else [Named(name, FIRST_VERSION, path)]
    return found or [Named("", FIRST_VERSION, None)]


def _split(text: str) -> tuple[str, Path]:
    name, separator, rest = text.partition("=")
    if not separator or Path(text).exists():
        return "", Path(text)
    if not _NAME.fullmatch(name):
        raise ModelFileError(f"{name!r} as a model's name, expected up to 100 letters, digits and . _ -")
    return name, Path(rest)


def _in_folder(name: str, folder: Path) -> list[Named]:
    versions = _versions(folder)
    if versions:
        return [Named(name or _as_name(folder.name), version, path) for version, path in versions]
    if name:
        raise ModelFileError(f"{folder}: no folders 1, 2, ... with a model file each, expected the versions of {name}")
    found = [Named(_as_name(path.stem), FIRST_VERSION, path) for path in _model_files(folder)]
    for inner in sorted(folder.iterdir()):
        if inner.is_dir():
            found += [Named(_as_name(inner.name), version, path) for version, path in _versions(inner)]
    if not found:
        raise ModelFileError(f"{folder}: has no model, expected .onnx or .tflite files, or folders NAME/1/FILE")
    return found


def _versions(folder: Path) -> list[tuple[str, Path]]:
    """(version, model file) of the numbered folders in a folder."""
    found = []
    for inner in sorted(folder.iterdir()):
        is_version = inner.name.isascii() and inner.name.isdecimal() and len(inner.name) < 10
        if not (is_version and inner.is_dir() and int(inner.name)):
            continue
        files = _model_files(inner)
        if len(files) != 1:
            raise ModelFileError(f"{inner}: has {len(files)} model files, a version has one")
        found.append((str(int(inner.name)), files[0]))
    return found


def _model_files(folder: Path) -> list[Path]:
    suffixes = {suffix for engine in ENGINES.values() for suffix in engine.suffixes}
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in suffixes)


def _as_name(text: str) -> str:
    """The nearest text that can stand in an address."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip("._-")[:100] or "model"


class Model:
    """A model that is loaded, and that has run once.

    Args:
        named: file, name and version.
        load: opens the file.
        runs: how many photos run at a time on the CPU.
        threads: of each run; None: the engine's choice.

    Raises:
        UnetRuntimeError: it cannot be loaded, or does not run.
    """

    def __init__(self, named: Named, load: Load, runs: int, threads: int | None) -> None:
        self.segmenter = load(named.path, threads)
        self.spec: ModelSpec = self.segmenter.spec
        self.backend = self.segmenter.backend
        self.name = named.name or _as_name(self.spec.name)
        self.version = named.version
        self.page = find_page(named.path, self.spec)
        """Runs the same model in the browser; None where none is at hand."""
        self.failure = ""
        """Why the last run failed; empty while all is well."""
        is_cpu = self.backend.device == "cpu"
        # On the CPU a photo keeps a core busy by itself; a GPU takes what has come while it was busy as one batch.
        self._batches = None if is_cpu else Batches(self.segmenter.infer)
        count = models_to_load(self.backend, runs)
        loaded = [self.segmenter]
        for _ in range(count - 1):
            loaded.append(load(named.path, threads))
        self._idle = Pool(loaded * (runs // count))
        size = self.spec.input
        self.infer(np.zeros((1, size.height, size.width, 3), np.uint8))

    def infer(self, images: Images) -> Probabilities:
        """``Segmenter.infer``, which waits while too many others run.

        Raises:
            BackendError, ModelFileError: as there; noted in ``failure``.
        """
        try:
            outputs = self._batches.infer(images) if self._batches is not None else self._infer(images)
        except UnetRuntimeError as error:
            self.failure = str(error)
            logger.error("%s: %s", self.name, error)
            raise
        self.failure = ""
        return outputs

    def _infer(self, images: Images) -> Probabilities:
        with self._idle.borrow() as segmenter:
            return segmenter.infer(images)

    @property
    def title(self) -> str:
        """For people: what runs where."""
        where = f"{self.backend.engine}, {self.backend.device}"
        note = f" ({self.backend.note})" if self.backend.note else ""
        return f"{self.name} version {self.version}: {self.spec.precision}, {where}{note}"

    def state(self) -> dict[str, Any]:
        """For programs: what runs where, as the engine itself reports it."""
        return {
            "name": self.name,
            "version": self.version,
            "ready": not self.failure,
            "failure": self.failure,
            "precision": self.spec.precision,
            "engine": self.backend.engine,
            "device": self.backend.device,
            "note": self.backend.note,
        }

    def description(self) -> dict[str, Any]:
        """``state`` with the spec, and the address of the page that runs the model in the browser."""
        address = f"/browser/{self.name}/{self.version}/" if self.page else None
        return {**self.state(), "spec": asdict(self.spec), "browser": address}


class Models:
    """All models of a service.

    Raises:
        ModelFileError: two have the same name and version.
    """

    def __init__(self, models: Iterable[Model]) -> None:
        self._by_name: dict[str, dict[int, Model]] = {}
        for model in models:
            versions = self._by_name.setdefault(model.name, {})
            if int(model.version) in versions:
                raise ModelFileError(f"two models are called {model.name}: name them, with --model NAME=FILE")
            versions[int(model.version)] = model

    def __iter__(self) -> Iterator[Model]:
        for versions in self._by_name.values():
            yield from versions.values()

    @property
    def names(self) -> tuple[str, ...]:
        """Names, the default one first."""
        return tuple(self._by_name)

    def versions(self, name: str) -> list[str]:
        """Versions of a model, the oldest first."""
        return [str(number) for number in sorted(self._by_name[name])]

    def find(self, name: str = "", version: str = "") -> Model:
        """A model by its name (empty: the first one) and version (empty: the highest).

        Raises:
            RefusalError: there is none.
        """
        name = name or self.names[0]
        versions = self._by_name.get(name)
        if versions is None:
            raise RefusalError(NOT_FOUND, f"no model {name[:100]!r}, expected one of {', '.join(self.names)}")
        if not version:
            return versions[max(versions)]
        number = int(version) if version.isascii() and version.isdecimal() and len(version) < 10 else 0
        if number not in versions:
            known = ", ".join(self.versions(name))
            raise RefusalError(NOT_FOUND, f"no version {version[:20]!r} of {name}, expected one of {known}")
        return versions[number]


def load_models(named: Iterable[Named], load: Load, runs: int, threads: int | None) -> Models:
    """Load and try all models; see ``Model``.

    Raises:
        UnetRuntimeError: one of them cannot be served.
    """
    loaded = []
    for entry in named:
        loaded.append(Model(entry, load, runs, threads))
    if not loaded:
        raise BackendError("no model to serve: name one")
    return Models(loaded)
