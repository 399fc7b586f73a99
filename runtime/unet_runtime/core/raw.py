"""Camera raw files: the picture that a decoder finds in them is a preview, not the photo."""

from __future__ import annotations

import struct
from typing import IO

SUFFIXES = frozenset(
    [
        ".dng",
        ".cr2",
        ".cr3",
        ".crw",
        ".nef",
        ".nrw",
        ".arw",
        ".srf",
        ".sr2",
        ".raf",
        ".rw2",
        ".rwl",
        ".orf",
        ".pef",
        ".ptx",
        ".srw",
        ".x3f",
        ".3fr",
        ".fff",
        ".iiq",
        ".mrw",
        ".erf",
        ".kdc",
        ".dcr",
        ".dcs",
        ".mef",
        ".mos",
        ".gpr",
    ]
)
"""How the names of raw files end, in lower case."""

ADVICE = "the picture inside is a preview only: develop them to TIFF, PNG or JPEG first (darktable, RawTherapee)"

_MARKS = (
    b"FUJIFILMCCD-RAW",
    b"FOVb",  # Sigma
    b"\x00MRM",  # Minolta
    b"IIU\x00",  # Panasonic
    b"IIRO",  # Olympus
    b"IIRS",
    b"MMOR",
    b"II\x1a\x00\x00\x00HEAPCCDR",  # Canon, before 2004
)

_DNG_VERSION, _SUBFILE_TYPE, _PHOTOMETRIC, _CHILDREN = 50706, 254, 262, 330
_SENSOR = (32803, 34892)  # colour filter array, linear raw
_MOST_FOLDERS, _MOST_ENTRIES = 32, 4096


def refusal(suffix: str) -> str:
    """The text for one such file."""
    kind = f" ({suffix[1:].upper()})" if suffix in SUFFIXES else ""
    return f"is a camera's raw file{kind}, and {ADVICE.replace('develop them', 'develop it')}"


def is_raw(head: bytes) -> bool:
    """Whether a file that begins so is a camera's raw file, of those that are no TIFF."""
    is_cr2 = head[:4] in (b"II\x2a\x00", b"MM\x00\x2a") and head[8:10] == b"CR"
    is_phase_one = head[:4] in (b"II\x2a\x00", b"MM\x00\x2a") and head[8:12] in (b"IIII", b"MMMM")
    return head.startswith(_MARKS) or is_cr2 or is_phase_one or head[4:12] == b"ftypcrx "


def is_raw_tiff(file: IO[bytes], suffix: str) -> bool:
    """Whether a TIFF holds a sensor's values: by its suffix, its DNG version, or the kind of any picture in it."""
    if suffix in SUFFIXES:
        return True
    position = file.tell()
    try:
        return _holds_sensor_values(file)
    except (OSError, ValueError, struct.error):
        return False
    finally:
        file.seek(position)


def _holds_sensor_values(file: IO[bytes]) -> bool:
    file.seek(0)
    head = file.read(8)
    order = "<" if head[:2] == b"II" else ">"
    if struct.unpack(order + "H", head[2:4])[0] != 42:  # BigTIFF: no camera writes it
        return False
    waiting = [struct.unpack(order + "I", head[4:8])[0]]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_FOLDERS:
        place = waiting.pop()
        if place in seen or place == 0:
            continue
        seen.add(place)
        tags, following = _folder(file, place, order)
        if _DNG_VERSION in tags or any(value in _SENSOR for value in tags.get(_PHOTOMETRIC, ())):
            return True
        waiting += [following, *tags.get(_CHILDREN, ())]
    return False


def _folder(file: IO[bytes], place: int, order: str) -> tuple[dict[int, tuple[int, ...]], int]:
    """({tag: values}, place of the next folder) of one of a TIFF's folders of tags, of the tags that matter here."""
    file.seek(place)
    (count,) = struct.unpack(order + "H", file.read(2))
    count = min(count, _MOST_ENTRIES)
    content = file.read(12 * count + 4)
    tags: dict[int, tuple[int, ...]] = {}
    for index in range(count):
        tag, kind, values = struct.unpack_from(order + "HHI", content, 12 * index)
        field = content[12 * index + 8 : 12 * index + 12]
        if tag == _DNG_VERSION:
            tags[tag] = ()
        elif tag == _PHOTOMETRIC:
            tags[tag] = struct.unpack(order + "H", field[:2])
        elif tag == _CHILDREN and kind in (4, 13):
            tags[tag] = _longs(file, field, min(values, _MOST_FOLDERS), order)
    (following,) = struct.unpack(order + "I", content[12 * count : 12 * count + 4])
    return tags, following


def _longs(file: IO[bytes], field: bytes, count: int, order: str) -> tuple[int, ...]:
    if count == 1:
        return struct.unpack(order + "I", field)
    file.seek(struct.unpack(order + "I", field)[0])
    return struct.unpack(f"{order}{count}I", file.read(4 * count))
