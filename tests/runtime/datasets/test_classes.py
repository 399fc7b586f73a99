"""Classes as words and as files."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from unet_runtime.core.datasets.classes import (
    as_content,
    as_yaml,
    from_content,
    parse_classes,
    parse_values,
    read_class_file,
)
from unet_runtime.core.errors import MissingDependencyError, SourceError


def test_words_give_names_values_colours_and_roles() -> None:
    options = parse_classes("background,cat:#800000,border:3:neutral,Dog:foreground:7")
    assert [(entry.name, entry.role) for entry in options.classes] == [
        ("background", "background"),
        ("cat", "foreground"),
        ("border", "neutral"),
        ("Dog", "foreground"),
    ]
    assert options.values == {(128, 0, 0): 1, 3: 2, 7: 3}
    assert options.classes[1].color == (128, 0, 0)
    assert len({entry.color for entry in options.classes}) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat", "1 classes (cat), expected 2 to 255"),
        ("cat,cat", "expected a name that no other class has"),
        ("cat,", "expected text"),
        ("cat,dog:blue", "'blue' after 'dog', expected a role"),
        ("cat:1,dog:1", "the value 1 has two classes"),
        ("cat,dog:99999", "expected a value from 0 to 65535"),
        (",".join(f"c{index}" for index in range(256)), "256 classes (c0, c1, c2, c3, c4), expected 2 to 255"),
    ],
)
def test_words_that_are_no_classes(text: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_classes(text)
    assert words in str(caught.value)


YAML = """
classes:
  - background
  - {name: weld seam, value: [1, 2, "#ff0000"], color: "#ff8000"}
  - name: rim
    role: neutral
ignore: [254, "#ffffff"]
unlabelled: ignore
"""


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(YAML)
    options = read_class_file(tmp_path / "classes.yaml")
    assert [entry.name for entry in options.classes] == ["background", "weld seam", "rim"]
    assert options.values == {1: 1, 2: 1, (255, 0, 0): 1}
    assert options.classes[1].color == (255, 128, 0)
    assert options.classes[2].role == "neutral"
    assert options.ignore == {254, (255, 255, 255)}
    assert options.unlabelled == "ignore"
    (tmp_path / "again.yaml").write_text(as_yaml(options))
    assert read_class_file(tmp_path / "again.yaml") == options
    assert from_content(json.loads(json.dumps(as_content(options))), "spec") == options
    (tmp_path / "classes.json").write_text(json.dumps(as_content(options)))
    assert read_class_file(tmp_path / "classes.json") == options


def test_names_that_yaml_reads_otherwise(tmp_path: Path) -> None:
    options = parse_classes("no,yes")
    (tmp_path / "classes.yaml").write_text(as_yaml(options))
    assert [entry.name for entry in read_class_file(tmp_path / "classes.yaml").classes] == ["no", "yes"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "expected 'classes:'"),
        ("classes: 3", "expected 'classes:'"),
        ("classes: [a]", "1 classes (a), expected 2"),
        ("classes: [a, no]", "class 1 has the name False"),
        ("classes: [a, {title: b}]", "class 1 has title"),
        ("classes: [a, {name: b, color: red}]", "'red', expected a value from 0"),
        ("classes: [a, {name: b, color: 3}]", "has the color 3"),
        ("classes: [a, {name: b, role: main}]", "has the role 'main'"),
        ("classes: [a, {name: b, value: -1}]", "-1, expected a value from 0"),
        ("classes: [a, b]\nunlabelled: c", "unlabelled is 'c', expected one of a, b, or ignore"),
        ("classes: [a, b]\nnames: [a]", "has names, expected some of classes, ignore, unlabelled"),
        ("classes: [a, b]\nignore: [x]", "'x', expected a value"),
        ("classes: [a, b", "cannot be read"),
        ("classes: ['a\\nb', \"b\\nc\"]", "expected text without control characters"),
        ("{" * 5000, "cannot be read"),
    ],
)
def test_files_that_are_none(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text(content)
    with pytest.raises(SourceError) as caught:
        read_class_file(path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


def test_without_pyyaml_json_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "yaml":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.delitem(sys.modules, "yaml", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "classes.json").write_text('["a", "b"]')
    assert len(read_class_file(tmp_path / "classes.json").classes) == 2
    (tmp_path / "classes.yaml").write_text("[a, b]")
    with pytest.raises(MissingDependencyError, match=r"classes\.json would do.*pip install"):
        read_class_file(tmp_path / "classes.yaml")


def test_values() -> None:
    assert parse_values("0, 254,#ffFFff") == {0, 254, (255, 255, 255)}
    assert parse_values("") == frozenset()
    with pytest.raises(SourceError, match="'x', expected a value"):
        parse_values("1,x")
