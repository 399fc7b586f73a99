"""What Roboflow exports as "Semantic Segmentation Masks".

ROOT/train/NAME.jpg, NAME_mask.png        also valid/ and test/, or all in ROOT
ROOT/train/_classes.csv                   lines "pixel value, class"
"""

from __future__ import annotations

from pathlib import Path

from unet_runtime.core.datasets import classes as class_lists
from unet_runtime.core.datasets.base import Dataset, Layout, Options, Problem, Value
from unet_runtime.core.datasets.masks import SUFFIXES
from unet_runtime.core.datasets.pairing import beside, coding_of, pair, samples_of
from unet_runtime.core.datasets.parts import by_part, part_of
from unet_runtime.core.errors import SourceError

CLASS_FILE = "_classes.csv"


def _detect(root: Path) -> str:
    found = _class_files(root)
    return f"{found[0].relative_to(root).as_posix()}" if found else ""


def _class_files(root: Path) -> list[Path]:
    return [path for path in (root / CLASS_FILE, *sorted(root.glob(f"*/{CLASS_FILE}"))) if path.is_file()]


def _read(root: Path, options: Options, why: str) -> Dataset:
    names: dict[int, str] = {}
    found: list[tuple[str, Path, Path]] = []
    problems: list[Problem] = []
    folders = []
    for path in _class_files(root):
        _add(names, _class_names(path), path)
        folder = path.parent
        prefix = "" if folder == root else f"{folder.name}/"
        folders.append((prefix, part_of(folder.name) if prefix else ""))
        pairs = pair(*beside(folder, SUFFIXES), prefix)
        found += pairs.found
        problems += pairs.problems
    listed = [names[value] for value in sorted(names)]
    classes = class_lists.named_classes(listed)
    class_lists.check(classes, why)
    values: dict[Value, int] = {value: index for index, value in enumerate(sorted(names))}
    samples = samples_of(found, coding_of(values, options.ignore))
    part_by_prefix = dict(folders)
    parts = by_part((sample.name, part_by_prefix[_prefix(sample.name, part_by_prefix)]) for sample in samples)
    return Dataset(root, LAYOUT.name, why, classes, samples, parts, tuple(problems))


def _prefix(name: str, known: dict[str, str]) -> str:
    first = name.partition("/")[0] + "/"
    return first if first in known else ""


def _class_names(path: Path) -> dict[int, str]:
    """Pixel value -> name.

    Raises:
        SourceError: unreadable, or a line that is none of such a table.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read ({error}), expected lines as '1, cat'") from error
    found: dict[int, str] = {}
    for number, line in enumerate(filter(str.strip, lines), 1):
        value, comma, name = line.partition(",")
        value, name = value.strip(), name.strip().strip('"')
        if number == 1 and not value.isdecimal():  # the heading
            continue
        if not (comma and name and value.isdecimal() and int(value) < 256):
            raise SourceError(f"{path}, line {number}: {line!r}, expected a pixel value and a class, as '1, cat'")
        if int(value) in found or name in found.values():
            raise SourceError(f"{path}, line {number}: {line!r} repeats a value or a class, expected each once")
        found[int(value)] = name
    return found


def _add(names: dict[int, str], more: dict[int, str], path: Path) -> None:
    for value, name in more.items():
        if names.setdefault(value, name) != name:
            raise SourceError(
                f"{path}: {value} is {name}, in another folder's {CLASS_FILE} it is {names[value]}: export all parts "
                "at once"
            )


LAYOUT = Layout(
    name="roboflow",
    title="Roboflow's semantic segmentation masks",
    expected="train/NAME.jpg, train/NAME_mask.png, train/_classes.csv",
    detect=_detect,
    read=_read,
)
