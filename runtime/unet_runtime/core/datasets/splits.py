"""Splits of a dataset: which photos train and which are held out.

    official          the parts that the data itself names: lists or folders
    random:SEED       each photo is held out with a chance of 1 in 5, decided by seed and name
    fold:K/N          the K-th of N parts of about equal size is held out, decided by the name
    article           as the article splits Oxford-IIIT Pet

A split's name travels in the model, so that nobody measures it on photos that it was trained on. ``random`` and
``fold`` may end with `` by REGEX``: photos whose names share what the pattern finds stay together, as frames of one
video do.
"""

from __future__ import annotations

import hashlib
import random
import re
from typing import Literal, NamedTuple, get_args

from unet_runtime.core.datasets.base import Dataset, Sample
from unet_runtime.core.errors import SourceError

Part = Literal["trainval", "test"]

PARTS: tuple[Part, ...] = get_args(Part)

OFFICIAL, ARTICLE = "official", "article"

_LEAST_SHARE, _MOST_SHARE, _SEEDS = 0.1, 0.5, 100

AUTOMATIC = "random:1"
"""Split of data that names no parts."""

FORMS = "official, article, random:SEED or fold:K/N"
"""Forms of a split's name, for messages."""

ARTICLE_LAYOUT = "oxford"
ARTICLE_TEST_COUNT, ARTICLE_SEED = 1000, 1337
"""Photos that the article holds out, and the seed of its shuffle: a fact to repeat, not a choice."""

RANDOM_ONE_IN = 5
"""``random:SEED`` holds one photo in five out, to within chance: 1,478 +- 34 of Oxford-IIIT Pet's 7,390."""

_GROUP = " by "

# One spelling for each seed and each fold: equal splits should have equal names.
_RANDOM = re.compile(r"random:(0|[1-9][0-9]*)", re.ASCII)
_FOLD = re.compile(r"fold:([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", re.ASCII)


class Split(NamedTuple):
    """A split's name, taken apart."""

    base: str
    """The name without the pattern."""
    group_by: re.Pattern[str] | None


def parse_split(split: str) -> Split:
    """Take a split's name apart.

    Raises:
        SourceError: no such split.
    """
    base, separator, pattern = split.partition(_GROUP)
    fold = _FOLD.fullmatch(base)
    if fold is not None and (int(fold[2]) < 2 or int(fold[1]) > int(fold[2])):
        raise SourceError(f"split {split!r}: expected fold:K/N with N of 2 or more and K from 1 to N, as fold:3/5")
    drawn = _RANDOM.fullmatch(base) or fold
    if not drawn and base not in (OFFICIAL, ARTICLE):
        raise SourceError(
            f"split {split!r}: expected {FORMS}, where SEED is a whole number from 0 up in plain digits, as random:7, "
            "and K of N folds, as fold:3/5"
        )
    if not separator:
        return Split(base, None)
    if not drawn:
        raise SourceError(f"split {split!r}: photos are grouped in random:SEED and fold:K/N alone, {base} is given")
    return Split(base, _group_pattern(pattern))


def automatic_split(dataset: Dataset) -> str:
    """``official`` where the data names both parts, else a random split: the first of ``random:1``, ``random:2``, ...
    that holds between a tenth and a half of the photos out, which a few photos may miss by chance."""
    if all(predefined(dataset, part) for part in PARTS):
        return OFFICIAL
    for seed in range(1, _SEEDS):
        split = f"random:{seed}"
        tested = sum(_drawn_part(split, sample.name) == "test" for sample in dataset.samples)
        if _LEAST_SHARE <= tested / max(1, len(dataset.samples)) <= _MOST_SHARE:
            return split
    return AUTOMATIC


def check_split(split: str) -> str:
    """``split`` itself where it names one.

    Raises:
        SourceError: anything else.
    """
    parse_split(split)
    return split


def grouped(split: str, pattern: str) -> str:
    """The split's name with the pattern that groups photos.

    Raises:
        SourceError: no such split, one whose parts are given, or no pattern of a group.
    """
    return check_split(f"{split}{_GROUP}{pattern}")


def group_of(name: str, group_by: re.Pattern[str] | None) -> str:
    """What a photo is kept together by: what the pattern (its first group, if it has one) finds in its name, or the
    name.

    Raises:
        SourceError: the pattern finds nothing in the name.
    """
    if group_by is None:
        return name
    found = group_by.search(name)
    if found is None:
        raise SourceError(
            f"the pattern {group_by.pattern!r} of --group-by finds nothing in the name {name!r}, expected a part that "
            "photos of one group share, as (video[0-9]+)_"
        )
    return found[1] or "" if group_by.groups else found[0]


def read_split(dataset: Dataset, split: str, part: Part) -> list[Sample]:
    """The photos of one part of a split, sorted by name.

    Args:
        dataset: as ``open_dataset`` reads it.
        split: see the module.
        part: ``trainval`` or ``test``.

    Raises:
        SourceError: no such split or part, or a part without a photo.
    """
    base, group_by = parse_split(split)
    if part not in PARTS:
        raise SourceError(f"part {part!r}: expected one of {', '.join(PARTS)}")
    if base == OFFICIAL:
        found = _official(dataset, part)
    elif base == ARTICLE:
        found = _article(dataset, part)
    else:
        found = [item for item in dataset.samples if _drawn_part(base, group_of(item.name, group_by)) == part]
    if not found:
        raise SourceError(
            f"{dataset.root}: the {part} part of the {split} split names no photo, expected at least one: is this the "
            f"data's folder, and are there enough of the {len(dataset.samples)} photos with labels? "
            "Another --split may hold other photos out"
        )
    return sorted(found, key=lambda sample: sample.name)


def predefined(dataset: Dataset, part: str) -> tuple[str, ...]:
    """Names of ``train``, ``val``, ``trainval`` or ``test`` as the data gives them; empty where it does not.

    What is called ``val`` is the test part where there is no other; ``trainval`` is then what is left.
    """
    train, val, trainval, test = (dataset.parts.get(name, ()) for name in ("train", "val", "trainval", "test"))
    if val and not test:
        val, trainval, test = (), train, val
    return {"train": train, "val": val, "trainval": trainval or train + val, "test": test}[part]


def _official(dataset: Dataset, part: Part) -> list[Sample]:
    names = predefined(dataset, part)
    if not names:
        found = ", ".join(f"{name} ({len(names)})" for name, names in dataset.parts.items()) or "none"
        raise SourceError(
            f"{dataset.root}: the official split needs parts that the data names, for training and for the test (lists "
            f"as train.txt and test.txt, or folders so named); the {part} part is missing, found: {found}. "
            "Draw the parts instead: --split random:1"
        )
    by_name = {sample.name: sample for sample in dataset.samples}
    return [by_name[name] for name in dict.fromkeys(names) if name in by_name]


def _article(dataset: Dataset, part: Part) -> list[Sample]:
    if dataset.layout != ARTICLE_LAYOUT:
        raise SourceError(f"{dataset.root}: the article's split is of Oxford-IIIT Pet alone: take --split random:1")
    complete = [item for item in dataset.samples if item.photo.is_file() and item.labels.path.is_file()]
    # Python promises no permutation from version to version, but has not changed this one since 3.2; a test holds it.
    random.Random(ARTICLE_SEED).shuffle(complete)
    count = min(ARTICLE_TEST_COUNT, len(complete) // 2)  # a smaller dataset keeps half for training
    border = len(complete) - count
    return complete[:border] if part == "trainval" else complete[border:]


def _drawn_part(base: str, group: str) -> Part:
    """The part of a group: test where the SHA-256 of ``SEED group``, read as a number, is divisible by 5; of a fold,
    where that of ``fold group`` is K - 1 modulo N.

    A permutation from a generator would move photos from part to part when one is added or removed, and with NumPy's
    version, and a model trained before would be tested on photos it has seen. For the same reason the share is a
    chance, not a count: a cut at exactly 20 % moves with the number of photos.
    """
    kind, _, argument = base.partition(":")
    if kind == "random":
        return "trainval" if digest(f"{argument} {group}") % RANDOM_ONE_IN else "test"
    fold, folds = map(int, argument.split("/"))
    return "test" if digest(f"{kind} {group}") % folds == fold - 1 else "trainval"


def digest(text: str) -> int:
    """The SHA-256 of a text as a number."""
    # surrogatepass: a file's name need not be Unicode text, and still has a part.
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), "big")


def _group_pattern(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SourceError(
            f"--group-by {pattern!r}: no regular expression ({error}), expected one as (video[0-9]+)_"
        ) from error
