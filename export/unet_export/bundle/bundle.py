"""One archive for a device without network: the runtime, all that it needs as wheels, accepted models, an installer.

    unet-edge-<platform>/
        LICENSE NOTICE.md       whose weights the runtime brings, and under which terms
        install.sh install.py   the second does the work, with Python's standard library alone
        README.txt
        bundle.json             what the installer must know of the device
        requirements.txt        every package: version and SHA-256
        SHA256SUMS              of every other file
        models/                 accepted models and the parity.json that proves them
        wheels/                 runtime, engines, their dependencies, pip

What goes in is what the gate accepted, byte for byte; versions are those installed here, where they suit the device
(see ``wheels.py``). Beside the archive lies its bill of materials (see ``sbom.py``).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from unet_export.bundle.archive import SUFFIXES, write_archive
from unet_export.bundle.sbom import SUFFIX, bill_of_materials, sha256
from unet_export.bundle.wheels import PLATFORMS, PlatformName, WheelError, Wheelhouse, oldest_system, pip, wheel_version
from unet_export.errors import ExportError
from unet_export.staging import COMMAND, PARITY_NAME, staging_folder
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.files import publish, write_text
from unet_runtime.core.signature import FILE_SUFFIX, FOLDER_SIGNATURE
from unet_runtime.engines import ENGINES, readers
from unet_runtime.io.places import Places

logger = logging.getLogger(__name__)

RUNTIME = "unet-edge-runtime"
CUDA = "cuda"
BUNDLE_ENGINES = (*ENGINES, CUDA)
"""Values of ``engines``: the runtime's backends, and ``cuda``: the ``onnx`` one with NVIDIA's libraries."""

_DEVICE_FILES = Path(__file__).parent / "device"


class _Model(NamedTuple):
    """A model that the gate accepted, by its file's name in the export."""

    name: str
    sha256: str
    backends: frozenset[str]
    """Backends of the runtime that it passed on."""


def bundle(
    export: Path,
    platform: PlatformName,
    output: Path,
    *,
    python: str = "3.11",
    engines: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    runtime: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one archive that installs ``unet-run`` and an export's models where there is Python and no network.

    uv and pip fetch the wheels now, from the indexes that pip is configured to use here.

    Args:
        export: folder that ``unet-export`` accepted, with its ``parity.json``. A SavedModel in it stays there: it needs
            TensorFlow.
        platform: of ``PLATFORMS``, such as ``linux-aarch64``.
        output: the archive, ``.tar.gz`` or ``.zip``, replaced if it is an earlier one; or a folder that exists, which
            gets ``unet-edge-<platform>.tar.gz``: Python alone unpacks it, and so does a bare Linux. ``.zip`` for
            Windows.
        python: CPython's version on the device, ``3.11``: wheels are made for one.
        engines: of ``BUNDLE_ENGINES``; None takes ``onnx`` for ``.onnx`` and ``tflite`` for ``.tflite`` models.
        models: file names of the export to take; None takes every ``.onnx`` and ``.tflite``.
        runtime: wheel or source folder of unet-edge-runtime; None takes what the one installed here was made from,
            and asks pip's indexes for the same version where that is gone.
        overwrite: replace an archive of others, too.

    Returns:
        The archive's path; ``bill_path`` of it is its bill of materials.

    Raises:
        ExportError: unknown platform, engine or model; an export that is not accepted or was changed since; a wheel
            that cannot be fetched or built, for want of a network too.
        ModelFileError: a model is missing or damaged.
        OutputError: ``output`` cannot be written, or the disk is full. Nothing is left behind.
    """
    if platform not in PLATFORMS:
        raise ExportError(f"platform {platform!r}, expected one of {', '.join(PLATFORMS)}")
    if not re.fullmatch(r"3\.\d+", python):
        raise ExportError(f"Python {python!r}, expected a version such as 3.11")
    target = _target(output, platform)
    places = Places(overwrite=overwrite, command=COMMAND)
    places.check(target)
    if not target.exists():  # else the bill is that of the earlier bundle: its format has no place for a stamp
        places.check(bill_path(target))
    chosen = _accepted(export, models)
    extras = _extras(chosen, engines)
    with staging_folder(target) as folder:
        root = folder / f"unet-edge-{platform}"
        _take_models(export, chosen, root / "models")
        (root / "wheels").mkdir()
        house = Wheelhouse(root / "wheels", platform, python)
        own = _runtime_wheel(runtime, house)
        house.fetch_dependencies(own, extras)
        _write_texts(root, house, own, extras, chosen)
        archive = folder / target.name
        write_archive(root, archive)
        models_taken = [root / "models" / model.name for model in chosen]
        bill = bill_of_materials(archive, own, house.wheels.values(), models_taken)
        publish(archive, target)
        write_text(bill_path(target), bill)
        count = len(house.wheels)
    megabytes = target.stat().st_size / 1e6
    logger.info("%s: %d models, %d wheels, %.0f MB", target, len(chosen), count, megabytes)
    return target


def bill_path(archive: Path) -> Path:
    """The bill of materials beside a bundle: ``unet-edge-linux-aarch64.cdx.json``."""
    name = archive.name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return archive.with_name(name + SUFFIX)


def _target(output: Path, platform: str) -> Path:
    suffix = ".zip" if platform.startswith("windows") else ".tar.gz"
    target = output / f"unet-edge-{platform}{suffix}" if output.is_dir() else output
    if not target.name.endswith(SUFFIXES):
        raise ExportError(f"{output}: no folder that exists, and no archive's name: expected {' or '.join(SUFFIXES)}")
    return target


# --- models ----------------------------------------------------------------------------------------


def _accepted(export: Path, names: Sequence[str] | None) -> list[_Model]:
    """Models that ``parity.json`` calls passed: those of ``names``, or all that the runtime reads."""
    path = export / PARITY_NAME
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        verdict, found = report["passed"] is True or _partly_accepted(report), _proven(report["artifacts"])
    except FileNotFoundError as error:
        raise ExportError(f"{path}: not there: expected a folder that unet-export accepted") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{path}: no report of unet-export ({error!r}): export again") from error
    if verdict is not True:
        raise ExportError(f"{path}: the gate did not pass: only accepted exports are bundled")
    if names is None:
        names = list(found)
    if unknown := set(names).difference(found):
        raise ExportError(
            f"{', '.join(sorted(unknown))}: not accepted in {export}, expected some of {', '.join(found)}"
        )
    if not names:
        raise ExportError(f"{export}: no accepted .onnx or .tflite model: export some with unet-export --formats")
    return list(map(found.__getitem__, dict.fromkeys(names)))


def _partly_accepted(report: dict[str, Any]) -> bool:
    """Whether an export was accepted without some of its artifacts, which failed or could not be made."""
    left_out = bool(report.get("refused")) or not all(entry["passed"] for entry in report["artifacts"])
    return bool(report.get("accepted")) and left_out


def _proven(entries: Sequence[dict[str, Any]]) -> dict[str, _Model]:
    """Models of the report's ``artifacts`` by file name, those with a refused entry left out."""
    found: dict[str, _Model] = {}
    refused = set()
    for entry in entries:
        name = entry["file"]
        if not readers(Path(name).suffix) or Path(name).name != name:
            continue
        backends = frozenset(engine["backend"] for engine in entry["engines"] if engine["verdict"] == "passed")
        model = _Model(name, entry["sha256"], backends)
        if entry["passed"] is not True or found.setdefault(name, model) != model:
            refused.add(name)
    for name in refused:
        found.pop(name, None)
    return found


def _extras(models: Sequence[_Model], engines: Sequence[str] | None) -> list[str]:
    """Extras of the runtime that bring the engines.

    Raises ExportError for an unknown engine, two that exclude each other, or a model that none reads or is proven on.
    """
    if engines is None:
        engines = [readers(Path(model.name).suffix)[0] for model in models]
    if unknown := set(engines).difference(BUNDLE_ENGINES):
        raise ExportError(f"engine {', '.join(sorted(unknown))}, expected some of {', '.join(BUNDLE_ENGINES)}")
    if CUDA in engines and "onnx" in engines:
        raise ExportError("engines onnx and cuda are two builds of one package: choose cuda alone, it has the CPU too")
    backends = {"onnx" if name == CUDA else name for name in engines}
    for model in models:
        # The order in which the runtime's ``auto`` will choose on the device.
        able = list(filter(backends.__contains__, readers(Path(model.name).suffix)))
        if not able:
            raise ExportError(f"{model.name}: engines {', '.join(engines)} do not read it: add one, or leave it out")
        if able[0] not in model.backends:
            raise ExportError(
                f"{model.name}: not proven on {able[0]}, which would run it on the device: install that engine here "
                "and export again, or choose another"
            )
    return sorted({name if name == CUDA else ENGINES[name].extra for name in engines})


def _take_models(export: Path, models: Sequence[_Model], folder: Path) -> None:
    """Copy what was proven: the bytes that are checked are those that are written."""
    folder.mkdir(parents=True)
    for model in models:
        content = read_artifact(export / model.name).content
        if hashlib.sha256(content).hexdigest() != model.sha256:
            raise ExportError(f"{export / model.name}: changed since the gate accepted it: export again")
        (folder / model.name).write_bytes(content)
        own = export / f"{model.name}{FILE_SUFFIX}"
        if own.is_file():
            shutil.copyfile(own, folder / own.name)
    if (export / FOLDER_SIGNATURE).is_file():  # signs each file by its name, so it does here
        shutil.copyfile(export / FOLDER_SIGNATURE, folder / FOLDER_SIGNATURE)
    shutil.copyfile(export / PARITY_NAME, folder / PARITY_NAME)


# --- runtime ---------------------------------------------------------------------------------------


def _runtime_wheel(runtime: Path | None, house: Wheelhouse) -> Path:
    """Put the runtime's own wheel into the wheelhouse: copied, built, or fetched."""
    source = runtime or _installed_from()
    if source is None:
        try:
            return house.fetch(f"{RUNTIME}=={importlib.metadata.version(RUNTIME)}")
        except WheelError as error:
            raise WheelError(f"{error}; or name a wheel or the source folder of {RUNTIME} (runtime)") from error
    if source.suffix == ".whl" and source.is_file():
        shutil.copyfile(source, house.folder / source.name)
    elif (source / "pyproject.toml").is_file():
        logger.info("building the runtime's wheel from %s", source)
        pip("wheel", "--quiet", "--no-deps", f"--wheel-dir={house.folder}", str(source.absolute()))
    else:
        raise ExportError(f"{source}: neither a wheel nor a source folder of {RUNTIME}")
    (wheel,) = house.folder.glob("*.whl")
    if not wheel.name.startswith(f"{RUNTIME.replace('-', '_')}-"):
        raise ExportError(f"{source} gives {wheel.name}, expected {RUNTIME}")
    return wheel


def _installed_from() -> Path | None:
    """Source folder or wheel that the runtime here was installed from, if it is still there (PEP 610)."""
    recorded = importlib.metadata.distribution(RUNTIME).read_text("direct_url.json")
    url = urlsplit(json.loads(recorded)["url"]) if recorded else urlsplit("")
    path = Path(url2pathname(url.path))
    return path if url.scheme == "file" and path.exists() else None


# --- installer and lists ---------------------------------------------------------------------------


def _write_texts(root: Path, house: Wheelhouse, own: Path, extras: Sequence[str], models: Sequence[_Model]) -> None:
    """Write everything that is neither wheel nor model."""
    texts = {"requirements.txt": ""}
    for name, wheel in house.wheels.items():
        project = f"{name}[{','.join(extras)}]" if wheel == own else name
        texts["requirements.txt"] += f"{project}=={wheel_version(wheel)} --hash=sha256:{sha256(wheel)}\n"
    needs = oldest_system(house.wheels.values())
    installer = house.fetch(f"pip=={importlib.metadata.version('pip')}")
    about = {
        "platform": house.platform,
        "system": PLATFORMS[house.platform].system,
        "machine": PLATFORMS[house.platform].machine,
        "python": house.python,
        "needs": needs,
        "pip": installer.relative_to(root).as_posix(),
        "models": [f"models/{model.name}" for model in models],
    }
    texts["bundle.json"] = json.dumps(about, indent=1) + "\n"
    systems = "".join(f", {kind} {version} or newer" for kind, version in needs.items())
    texts["README.txt"] = (
        f"{RUNTIME} {wheel_version(own)} and {len(models)} models for {house.platform}, CPython {house.python}"
        f"{systems}. Needs no network.\nInstall: sh install.sh (Windows: py install.py); --help lists where to. "
        "It ends with the unet-run command to try.\n"
    )
    for name in ("install.sh", "install.py"):
        texts[name] = (_DEVICE_FILES / name).read_text(encoding="utf-8").replace("@PYTHON@", house.python)
    texts |= _terms(own)
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8", newline="\n")
    (root / "install.sh").chmod(0o755)
    sums = ""
    for path in sorted(filter(Path.is_file, root.rglob("*"))):
        sums += f"{sha256(path)}  {path.relative_to(root).as_posix()}\n"
    (root / "SHA256SUMS").write_text(sums, encoding="utf-8", newline="\n")


def _terms(own: Path) -> dict[str, str]:
    """LICENSE and NOTICE.md of the runtime, whose bundled weights are for research: for all to see, not in a wheel."""
    with zipfile.ZipFile(own) as wheel:
        found = [name for name in wheel.namelist() if ".dist-info/licenses/" in name]
        return {Path(name).name: wheel.read(name).decode("utf-8") for name in found}
