"""The rules of docs/architecture.md that a machine can hold: who imports whom, and who prints."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGES = {"unet_runtime": "runtime", "unet_export": "export", "unet_training": "training"}

FORBIDDEN = {
    "unet_runtime": {"unet_export", "unet_training", "tensorflow", "keras", "onnx", "tf2onnx", "matplotlib"},
    "unet_export": {"unet_training"},
    "unet_training": {"unet_export", "tensorflow", "onnx", "onnxruntime"},
}

PLOT_MODULE, PLOTS = "runtime/unet_runtime/bench/plot.py", {"matplotlib"}  # an extra, imported when there is a plot

ENGINES = {"onnxruntime", "ai_edge_litert", "openvino"}


def modules(package: str) -> list[Path]:
    found = sorted((REPOSITORY / PACKAGES[package] / package).rglob("*.py"))
    assert len(found) > 5
    return found


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, also inside functions."""
    result = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            result |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            result.add((node.module or "").split(".")[0])
    return result


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_form_a_star(package: str) -> None:
    for path in modules(package):
        allowed = PLOTS if path.relative_to(REPOSITORY).as_posix() == PLOT_MODULE else set()
        assert not imported(path) & FORBIDDEN[package] - allowed, path


def test_an_engine_is_imported_in_its_own_module_only() -> None:
    for path in modules("unet_runtime"):
        engines = imported(path) & ENGINES
        assert len(engines) <= (path.parent.name == "engines"), f"{path} imports {engines}"


@pytest.mark.parametrize("package", PACKAGES)
def test_only_commands_print_or_exit(package: str) -> None:
    for path in modules(package):
        if "cli" in path.parts[-2:][0] or path.stem == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"print", "click.echo", "sys.exit", "exit", "quit"}, f"{path}:{node.lineno}"


def test_the_runtime_imports_no_framework_and_no_engine() -> None:
    """In a fresh process of an environment that has them all."""
    script = (
        "import sys, unet_runtime, unet_runtime.cli.run, unet_runtime.cli.bench, unet_runtime.cli.info;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not set(loaded) & (FORBIDDEN["unet_runtime"] | ENGINES)


def test_files_stay_readable() -> None:
    for package in PACKAGES:
        for path in modules(package):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
