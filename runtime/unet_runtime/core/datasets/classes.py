"""Classes of a dataset: as a list of words, as a file beside the data, or made of the values that masks show.

``classes.yaml`` (or ``classes.json``, which needs no package) lists classes by id:

    classes:
      - name: background
        value: 0            # in masks: a number, a colour as "#000000", or a list of them; missing: the class id
        color: "#283c78"    # in palettes and overlays; missing: one of the project's own
        role: background    # foreground, background or neutral; missing: by the name
      - weld                # a name alone will do
    ignore: [255]           # values or colours in masks that are no class, beside 255
    unlabelled: background  # class of pixels on which nothing was drawn, where labels are shapes; or "ignore"
"""

from __future__ import annotations

import colorsys
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from unet_runtime.core.datasets.base import Options, Value
from unet_runtime.core.errors import ModelFileError, SourceError
from unet_runtime.core.install import missing
from unet_runtime.core.spec import ROLES, ClassSpec, Role, check_classes

FILES = ("classes.yaml", "classes.yml", "classes.json")
"""Looked for in a dataset's folder, in this order."""

MAX_CLASSES = 255
"""Ids 0 to 254: 255 are pixels that say nothing."""

IGNORE = "ignore"
"""As the name of a class: pixels that say nothing."""

BACKGROUND = "background"
FOREGROUND = "foreground"

_BACKGROUNDS = ("background", "_background_", "unlabeled", "unlabelled", "void", "other", "bg")
"""Names, in lower case, of a class that is background."""

_GROUND = (40, 60, 120)
"""Colour of a background without one of its own."""

_COLOUR = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
_KEYS = {"classes", "ignore", "unlabelled"}
_CLASS_KEYS = {"name", "value", "color", "role"}
_MAX_VALUE = 65_535  # of 16-bit masks


def role_of(name: str) -> Role:
    """The role of a class whose name alone is known."""
    return "background" if name.lower() in _BACKGROUNDS else "foreground"


def named_classes(
    names: Sequence[str], colours: Mapping[str, tuple[int, int, int]] | None = None
) -> tuple[ClassSpec, ...]:
    """Classes by id, each with a colour of its own where ``colours`` gives none."""
    found = []
    for index, name in enumerate(names):
        role = role_of(name)
        colour = (colours or {}).get(name) or (_GROUND if role == BACKGROUND else colour_of(index, len(names)))
        found.append(ClassSpec(name, colour, role))
    return tuple(found)


def colour_of(index: int, count: int) -> tuple[int, int, int]:
    """RGB of class ``index`` of ``count``: far from the others' in hue."""
    red, green, blue = colorsys.hsv_to_rgb(index / max(1, count), 0.75, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def hexadecimal(colour: tuple[int, int, int]) -> str:
    """``#800000`` of (128, 0, 0)."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def parse_classes(text: str) -> Options:
    """``background,cat:#800000,border:3:neutral`` -> classes by id; after a name, in any order, its value or colour in
    masks and its role.

    Raises:
        SourceError: fewer than two names, a name or value twice, or something after a name that is none of these.
    """
    entries: list[dict[str, Any]] = []
    for part in text.split(","):
        name, *words = map(str.strip, part.split(":"))
        entry: dict[str, Any] = {"name": name}
        for word in words:
            if word in ROLES:
                entry["role"] = word
            elif word.isdecimal():
                entry["value"] = int(word)
            elif _COLOUR.fullmatch(word):
                entry |= {"value": word, "color": word}
            else:
                raise SourceError(
                    f"classes {text!r}: {word!r} after {name!r}, expected a role ({', '.join(ROLES)}), a value in "
                    "masks as 3, or a colour as #800000"
                )
        entries.append(entry)
    return _options({"classes": entries}, f"classes {text!r}")


def read_class_file(path: Path) -> Options:
    """Read ``classes.yaml`` or ``classes.json``.

    Raises:
        SourceError: unreadable, or not as the module describes it; the message names file and entry.
        MissingDependencyError: a YAML file, and PyYAML is not installed.
    """
    return _options(parse_file(path), str(path))


def class_file(root: Path) -> Path | None:
    """The file of classes in a dataset's folder."""
    for name in FILES:
        if (root / name).is_file():
            return root / name
    return None


def as_content(options: Options) -> dict[str, Any]:
    """What a class file that reads as ``options`` holds."""
    values: dict[int, list[int | str]] = {}
    for value, index in options.values.items():
        values.setdefault(index, []).append(value if isinstance(value, int) else hexadecimal(value))
    classes: list[dict[str, Any]] = []
    for index, entry in enumerate(options.classes):
        described: dict[str, Any] = {"name": entry.name}
        if index in values:
            described["value"] = values[index][0] if len(values[index]) == 1 else values[index]
        classes.append({**described, "color": hexadecimal(entry.color), "role": entry.role})
    ignored = [value if isinstance(value, int) else hexadecimal(value) for value in sorted(options.ignore, key=str)]
    content: dict[str, Any] = {"classes": classes, "ignore": ignored}
    return content | ({"unlabelled": options.unlabelled} if options.unlabelled else {})


def from_content(content: Any, where: str) -> Options:
    """Options of what a class file holds.

    Raises:
        SourceError: it is not as the module describes it; the message begins with ``where``.
    """
    return _options(content, where)


def as_yaml(options: Options) -> str:
    """A class file that reads as ``options``; plain enough to be written without PyYAML."""
    content = as_content(options)
    lines = [
        "# The classes of this dataset, by id. Give them names; roles are foreground, background or neutral.",
        "classes:",
    ]
    for entry in content["classes"]:
        words = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()]
        lines.append("  - " + "\n    ".join(words))
    lines.append("# Values or colours in masks that are no class, beside 255.")
    lines.append(f"ignore: {json.dumps(content['ignore'])}")
    if options.unlabelled:
        lines.append(f"unlabelled: {json.dumps(options.unlabelled, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _value_text(value: Value) -> str:
    return str(value) if isinstance(value, int) else f'"{hexadecimal(value)}"'


def parse_file(path: Path) -> Any:
    """The content of a file of classes, YAML or JSON.

    Raises:
        SourceError: unreadable.
        MissingDependencyError: a YAML file, and PyYAML is not installed.
    """
    load, error_type = (json.loads, ValueError) if path.suffix == ".json" else _yaml()
    try:
        return load(path.read_text(encoding="utf-8-sig"))
    except (error_type, OSError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        reason = " ".join(str(error).split())
        raise SourceError(f"{path}: cannot be read ({reason}), expected a list of classes") from error


def _yaml() -> tuple[Callable[[str], Any], type[Exception]]:
    """PyYAML's reader and its error."""
    try:
        import yaml
    except ImportError as error:
        raise missing("a classes.yaml (classes.json would do)", "PyYAML", "datasets") from error
    return yaml.safe_load, yaml.YAMLError


def _options(content: Any, where: str) -> Options:
    """Options of the parsed content of a class file."""
    if isinstance(content, list):
        content = {"classes": content}
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
        raise SourceError(
            f"{where}: expected 'classes:' with a list of names, or of entries with name, value, color, role"
        )
    unknown = sorted(map(str, set(content) - _KEYS))
    if unknown:
        raise SourceError(f"{where}: has {', '.join(unknown)}, expected some of {', '.join(sorted(_KEYS))}")
    entries = content["classes"]
    classes = []
    values: dict[Value, int] = {}
    for index, entry in enumerate(entries):
        spec, given = _class(entry, index, len(entries), where)
        classes.append(spec)
        for value in given:
            if value in values:
                raise SourceError(f"{where}: the value {_value_text(value)} has two classes, expected one")
            values[value] = index
    check(classes, where)
    ignore = content.get("ignore")
    ignored = frozenset(_value(value, where) for value in ([] if ignore is None else _as_list(ignore)))
    return Options(tuple(classes), values, ignored, _unlabelled(content.get("unlabelled"), classes, where))


def check(classes: Sequence[ClassSpec], where: str) -> None:
    """Refuse classes that no model can have.

    Raises:
        SourceError: fewer than two or more than 255, a name twice, or a name that cannot be printed.
    """
    if not 2 <= len(classes) <= MAX_CLASSES:
        names = ", ".join(entry.name for entry in classes[:5]) or "none"
        raise SourceError(f"{where}: {len(classes)} classes ({names}), expected 2 to {MAX_CLASSES}")
    try:
        check_classes(tuple(classes))
    except ModelFileError as error:
        raise SourceError(f"{where}: {str(error).removeprefix('model spec: ')}") from error


def _class(entry: Any, index: int, count: int, where: str) -> tuple[ClassSpec, list[Value]]:
    if not isinstance(entry, dict):
        entry = {"name": entry}
    unknown = sorted(map(str, set(entry) - _CLASS_KEYS))
    if unknown or not isinstance(entry.get("name"), str):
        what = f"has {', '.join(unknown)}" if unknown else f"has the name {entry.get('name')!r}"
        raise SourceError(f"{where}: class {index} {what}, expected name (a text), and perhaps value, color and role")
    name = entry["name"]
    colour = entry.get("color")
    colour = colour_of(index, count) if colour is None else _value(colour, where)
    role = entry.get("role") or role_of(name)
    if isinstance(colour, int):
        raise SourceError(f'{where}: class {name!r} has the color {colour}, expected one as "#800000"')
    if role not in ROLES:
        raise SourceError(f"{where}: class {name!r} has the role {role!r}, expected one of {', '.join(ROLES)}")
    given = entry.get("value")
    values = [] if given is None else [_value(value, where) for value in _as_list(given)]
    return ClassSpec(name, colour, cast(Role, role)), values


def parse_values(text: str) -> frozenset[Value]:
    """``0,254`` or ``#ffffff`` -> values or colours; none of an empty text.

    Raises:
        SourceError: something that is neither.
    """
    words = filter(None, map(str.strip, text.split(",")))
    return frozenset(_value(int(word) if word.isdecimal() else word, f"values {text!r}") for word in words)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _value(value: Any, where: str) -> Value:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_VALUE:
        return value
    if isinstance(value, str) and (found := _COLOUR.fullmatch(value)):
        return int(found[1], 16), int(found[2], 16), int(found[3], 16)
    raise SourceError(f'{where}: {value!r}, expected a value from 0 to {_MAX_VALUE}, or a colour as "#800000"')


def _unlabelled(name: Any, classes: Iterable[ClassSpec], where: str) -> str:
    names = [entry.name for entry in classes]
    if name in (None, ""):
        return ""
    if name != IGNORE and name not in names:
        raise SourceError(f"{where}: unlabelled is {name!r}, expected one of {', '.join(names)}, or {IGNORE}")
    return str(name)
