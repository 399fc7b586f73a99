"""The rules of docs/architecture.md that a machine can hold: who imports whom, who prints, what an extension costs."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY

PACKAGES = {"unet_runtime": "runtime", "unet_export": "export", "unet_training": "training"}

FORBIDDEN = {
    "unet_runtime": {"unet_export", "unet_training", "tensorflow", "keras", "onnx", "tf2onnx", "matplotlib"},
    "unet_export": {"unet_training"},
    "unet_training": {"unet_export", "tensorflow", "onnx", "onnxruntime"},
}
"""Top-level modules that a package never imports."""

PLOT_MODULE = "runtime/unet_runtime/bench/plot.py"
"""The one module of the runtime that may import matplotlib, an extra, when there is a plot to draw."""

DEVICE_INSTALLER = "export/unet_export/bundle/device/install.py"
"""A script that a bundle carries to a device and that runs there: it is not part of the package, and prints."""

CORE_EXTRAS = {
    "runtime/unet_runtime/core/datasets/classes.py": {"yaml"},
    "runtime/unet_runtime/core/datasets/shapes.py": {"pycocotools"},
    "runtime/unet_runtime/core/signature.py": {"cryptography"},
}
"""Modules of core that import an extra, when a dataset or a key needs it."""

ENGINES = {"onnxruntime", "ai_edge_litert", "openvino"}

FLOORS = {
    "unet_runtime": (
        ("core",),
        ("engines",),
        ("segmenter",),
        ("io",),
        ("live", "serve", "bench"),
        ("cli",),
    ),
    "unet_export": (
        ("errors", "photos", "quantization", "staging", "source_model", "foreign", "signature"),
        ("transforms",),
        ("formats",),
        ("gate",),
        ("repair", "diagnosis", "report", "bundle"),
        ("pipeline", "adopt"),
        ("cli",),
    ),
    "unet_training": (
        ("errors", "recipes", "files", "processes"),
        (
            "data",
            "models",
            "encoder_weights",
            "torch_file",
            "optimizers",
            "losses",
            "metrics",
            "segmentation_metrics",
            "keras_backend",
            "class_weights",
            "identity",
        ),
        ("build",),
        ("fit",),
        ("pipeline", "evaluate"),
        ("report", "compare", "check"),
        ("cli",),
    ),
}
"""The import rule: rooms (a folder or a module below the package) from the bottom up; none imports a floor above."""


def module_name(path: Path) -> str:
    """Dotted name of a source file; a package's ``__init__`` has the package's name."""
    parts = list(path.relative_to(REPOSITORY).with_suffix("").parts[1:])
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def source_files(package: str) -> list[Path]:
    found = sorted((REPOSITORY / PACKAGES[package] / package).rglob("*.py"))
    assert len(found) > 5
    return found


def import_statements(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name or "") of every import in a file: inside functions and under ``TYPE_CHECKING`` too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                yield node.module or "", alias.name


def imported_packages(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere."""
    return {module.split(".")[0] for module, _ in import_statements(path)}


def import_graph(package: str) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports anywhere."""
    paths = {module_name(path): path for path in source_files(package)}
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        targets = graph[name] = set()
        for module, member in import_statements(path):
            whole = f"{module}.{member}"
            if whole in paths:
                targets.add(whole)
            elif module in paths:
                targets.add(module)
        targets.discard(name)
    return graph


def room(module: str) -> str:
    """``core`` of ``unet_runtime.core.spec``; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def folder(module: str, modules: set[str]) -> str:
    """Dotted name of the folder that holds a module's file."""
    is_package = any(other.startswith(f"{module}.") for other in modules)
    return module if is_package else module.rpartition(".")[0]


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """The nodes of one circle of a graph, or nothing."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_a_floor_above(package: str) -> None:
    floors = {name: height for height, names in enumerate(FLOORS[package]) for name in names}
    for module, targets in import_graph(package).items():
        if module == package:  # the public API may name any part
            continue
        assert room(module) in floors, f"{module}: room {room(module)!r} has no floor in FLOORS"
        for target in targets - {package}:
            assert floors[room(target)] <= floors[room(module)], f"{module} imports {target}, which is above it"


@pytest.mark.parametrize("package", PACKAGES)
def test_there_is_no_circle_of_files(package: str) -> None:
    assert find_circle(import_graph(package)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_there_is_no_circle_of_folders(package: str) -> None:
    graph = import_graph(package)
    modules = set(graph)
    folders: dict[str, set[str]] = {}
    for module, targets in graph.items():
        here = folder(module, modules)
        for target in targets:
            there = folder(target, modules)
            if there != here:
                folders.setdefault(here, set()).add(there)
    folders.pop(package, None)  # modules directly below the package are on floors of their own
    for targets in folders.values():
        targets.discard(package)
    assert find_circle(folders) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_form_a_star(package: str) -> None:
    for path in source_files(package):
        allowed = {"matplotlib"} if path.relative_to(REPOSITORY).as_posix() == PLOT_MODULE else set()
        assert not imported_packages(path) & FORBIDDEN[package] - allowed, path


@pytest.mark.parametrize("package", ["unet_export", "unet_training"])
def test_only_commands_import_the_runtime_commands(package: str) -> None:
    for path in source_files(package):
        commands = {module for module, _ in import_statements(path) if module.startswith("unet_runtime.cli")}
        assert not commands or room(module_name(path)) == "cli", f"{path} imports {commands}"


def test_core_imports_numpy_and_pillow_alone() -> None:
    allowed = {"numpy", "PIL", "unet_runtime"} | set(sys.stdlib_module_names)
    for path in (REPOSITORY / "runtime/unet_runtime/core").rglob("*.py"):
        extras = CORE_EXTRAS.get(path.relative_to(REPOSITORY).as_posix(), set())
        assert imported_packages(path) - extras <= allowed, path


def test_an_engine_is_imported_in_its_own_module_only() -> None:
    for path in source_files("unet_runtime"):
        engines = imported_packages(path) & ENGINES
        assert len(engines) <= (path.parent.name == "engines"), f"{path} imports {engines}"


@pytest.mark.parametrize("package", PACKAGES)
def test_only_commands_print_or_exit(package: str) -> None:
    for path in source_files(package):
        if room(module_name(path)) == "cli" or path.relative_to(REPOSITORY).as_posix() == DEVICE_INSTALLER:
            continue
        assert "click" not in imported_packages(path), path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"print", "sys.exit", "exit", "quit"}, f"{path}:{node.lineno}"


def test_the_runtime_imports_no_framework_and_no_engine() -> None:
    """In a fresh process of an environment that has them all."""
    script = (
        "import sys, unet_runtime, unet_runtime.cli.run, unet_runtime.cli.bench, unet_runtime.cli.info;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not set(loaded) & (FORBIDDEN["unet_runtime"] | ENGINES)


def test_what_benchmarks_and_examples_import_is_there() -> None:
    """They run by hand alone: without this, a name that moved breaks them unseen."""
    known = {}
    for package in PACKAGES:
        known |= {module_name(path): path for path in source_files(package)}
    absent = []
    for path in [*(REPOSITORY / "benchmarks").glob("*.py"), *(REPOSITORY / "docs/examples").rglob("*.py")]:
        for module, member in import_statements(path):
            if module.split(".")[0] not in PACKAGES or f"{module}.{member}" in known:
                continue
            if module not in known or member not in defined_names(known[module]):
                absent.append(f"{path.name}: {module}.{member}")
    assert absent == []


def defined_names(path: Path) -> set[str]:
    """Names at the top of a file, and "" for the file itself."""
    names = {""}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names
