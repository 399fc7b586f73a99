"""A dataset: download (Oxford-IIIT Pet), split, load, feed.

O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar, "Cats and Dogs", CVPR 2012.
"""

from __future__ import annotations

import math
import shutil
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pooch

from unet_runtime.core.cores import usable_cores
from unet_runtime.core.datasets import Dataset, Sample, read_split
from unet_runtime.core.datasets.splits import OFFICIAL, group_of, parse_split, predefined
from unet_runtime.core.spec import InputSpec
from unet_training.data.augment import Augmenter
from unet_training.data.cache import PhotoCache
from unet_training.data.crops import Crops
from unet_training.data.outlines import OutlineWeights
from unet_training.data.pairs import Labelled, decode, without_margin
from unet_training.errors import DatasetError

BASE_URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
ARCHIVES = {
    "images.tar.gz": "sha256:67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
    "annotations.tar.gz": "sha256:52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
}
"""Archives of 791,918,971 and 19,173,078 bytes, and their digests, as TensorFlow Datasets records them:
https://github.com/tensorflow/datasets/blob/master/tensorflow_datasets/datasets/oxford_iiit_pet/checksums.tsv"""

Share = Callable[[int], slice]

Batch = tuple[np.ndarray, ...]
"""uint8 photos (n, h, w, 3), uint8 masks (n, h', w') of the pixels that the model predicts, and float32 weights
(n, h', w') where pixels are weighted."""


def ensure_dataset(root: Path) -> None:
    """Download and unpack the two official archives into ``root`` unless it is there.

    Raises:
        DatasetError: no network, a wrong checksum, or a folder that holds something else.
    """
    if (root / "images").is_dir() and (root / "annotations" / "trimaps").is_dir():
        return
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        found = sorted(entry.name for entry in root.iterdir())[:5] if root.is_dir() else "a file"
        raise DatasetError(
            f"{root}: expected images/ and annotations/trimaps/ as Oxford-IIIT Pet unpacks, found "
            f"{found}: set PETS_DIR to the dataset's folder"
        )
    # Beside root, and moved in one step once all is unpacked and verified: a killed download never looks
    # like a dataset, and the archives it had finished are used again.
    download = root.with_name(f".{root.name}.download")
    unpacked = download / "unpacked"
    try:
        shutil.rmtree(unpacked, ignore_errors=True)  # of a killed run: its last file may be half a file
        for archive, checksum in ARCHIVES.items():
            path = pooch.retrieve(
                BASE_URL + archive, known_hash=checksum, fname=archive, path=download, progressbar=True
            )
            _unpack(Path(path), unpacked)
        if root.is_dir():
            root.rmdir()
        unpacked.replace(root)
    except (OSError, ValueError, tarfile.TarError) as error:
        # pooch raises requests' errors (OSError) without network, ValueError on a wrong checksum.
        raise DatasetError(
            f"cannot download Oxford-IIIT Pet from {BASE_URL} into {root} ({error}). Without network, put the "
            "unpacked dataset somewhere and name its folder with --data or the environment variable PETS_DIR"
        ) from error
    shutil.rmtree(download)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive of files and folders; nothing lands outside of ``folder``.

    ``pooch.Untar`` checks members' names from Python 3.12 on only.

    Raises:
        DatasetError: a member is something else, or has a name that leads elsewhere.
        OSError, tarfile.TarError: the archive is damaged, or the disk is full.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DatasetError(
            f"{archive}: this Python unpacks archives without checking their names: take 3.11.4 or newer, or unpack "
            "the dataset yourself and name its folder with --data"
        )
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter=_checked_member)


def _checked_member(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """The filter of an archive that holds nothing but files and folders."""
    problem = "" if member.isreg() or member.isdir() else "is a link or a device"
    if member.name.startswith(("/", "\\")):
        problem = "has an absolute name"
    if problem:
        raise DatasetError(
            f"archive's member {member.name!r} {problem}, expected files and folders: it is not unpacked"
        )
    try:
        return tarfile.data_filter(member, folder)
    except tarfile.FilterError as error:
        raise DatasetError(f"archive's member {member.name!r} leads out of its folder: it is not unpacked") from error


@dataclass(frozen=True)
class Split:
    """Which photos train, which choose the checkpoint, which are measured once at the end."""

    train: list[Sample]
    validation: list[Sample]
    test: list[Sample]


def split_dataset(dataset: Dataset, split: str, validation: int, seed: int) -> Split:
    """The photos of each part of a split.

    Args:
        dataset: as ``open_dataset`` reads it.
        split: as ``unet_runtime.core.datasets.read_split``. Of ``article``, the 1,000 photos held out are
            validation and test, as in the article.
        validation: photos to take from trainval, at most a quarter of it.
        seed: chooses them; whatever it is, the test photos are those of the split.

    Raises:
        SourceError: no such split, a list is missing, or a part names no photo.
        DatasetError: photos are in both lists.
    """
    trainval = read_split(dataset, split, "trainval")
    test = read_split(dataset, split, "test")
    leaked = sorted({photo.name for photo in trainval} & {photo.name for photo in test})
    if leaked:
        raise DatasetError(
            f"{dataset.root}: {len(leaked)} photos are in the training part and in the test part "
            f"({', '.join(leaked[:5])}), expected in one of them: metrics on photos that were trained on say nothing. "
            "Restore the data's own lists, or draw the parts with --split random:1"
        )
    if split == "article":
        return Split(trainval, test, test)
    if len(trainval) < 2:
        raise DatasetError(
            f"{dataset.root}: 1 photo in the training part of the {split} split, expected at least 2: one to train on, "
            "one to choose the best epoch"
        )
    chosen = set(_validation(dataset, split, trainval, validation, seed))
    result = Split([], [], test)
    for photo in trainval:
        (result.validation if photo.name in chosen else result.train).append(photo)
    if not result.train:
        raise DatasetError(
            f"{dataset.root}: the {len(trainval)} photos of the training part of the {split} split are one group, "
            "expected at least 2 groups: one to train on, one to choose the best epoch"
        )
    return result


def _validation(dataset: Dataset, split: str, trainval: Sequence[Sample], most: int, seed: int) -> list[str]:
    """Names of the photos that choose the checkpoint: the data's own part, or some that are drawn, whole groups."""
    names = [photo.name for photo in trainval]
    base, group_by = parse_split(split)
    own = set(predefined(dataset, "val")) if base == OFFICIAL else set()
    if own and not own.issuperset(names):
        return [name for name in names if name in own]
    most = min(most, max(1, len(names) // 4))
    random = np.random.default_rng(seed)
    if group_by is None:
        return [names[index] for index in random.choice(len(names), most, replace=False).tolist()]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(group_of(name, group_by), []).append(name)
    members = list(groups.values())
    chosen: list[str] = []
    for index in random.permutation(len(members)).tolist():
        if not chosen or len(chosen) + len(members[index]) <= most:
            chosen += members[index]
    return chosen


def load(
    photos: Sequence[Sample], spec: InputSpec, cache: PhotoCache | None = None, crops: Crops | None = None
) -> Labelled:
    """``pairs.decode``, but what an earlier call has left in ``cache`` is not decoded again."""
    return decode(photos, spec, crops) if cache is None else cache.load(photos, spec, crops)


def _whole(photos: int) -> slice:
    return slice(photos)


class Batches(keras.utils.PyDataset):
    """Batches for ``evaluate``, a ``Batch`` each: all photos in their own order; the last may have fewer.

    Args:
        data, batch_size: decoded photos, and how many of them are in a batch.
        share: what of a batch of so many photos is given: where several processes evaluate together.
    """

    def __init__(self, data: Labelled, batch_size: int, share: Share | None = None) -> None:
        super().__init__()
        self._data, self._batch_size, self._share = data, batch_size, share or _whole

    def __len__(self) -> int:
        return math.ceil(len(self._data) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = slice(index * self._batch_size, (index + 1) * self._batch_size)
        photos, truths = self._data.photos[chosen], self._data.truths[chosen]
        part = self._share(len(photos))
        return photos[part], truths[part]


class TrainingBatches(keras.utils.PyDataset):
    """Batches for ``fit(shuffle=False)``, as ``Batches`` gives them, in an order drawn anew each epoch.

    What an epoch holds depends on the seed and the epoch's number alone, so that a training can be resumed. A
    smaller last batch is dropped: one of a single photo upsets BatchNormalization.

    Threads prepare the batches that come next. Keras' own workers (``workers=2``) would carry batches from one epoch
    into another (https://github.com/keras-team/keras/pull/20123), and under JAX it takes one before the first epoch.

    Args:
        data, batch_size: decoded photos, and how many of them are in a batch.
        seed: of the order.
        augment: where given, pictures are augmented; called from threads.
        first_epoch: that ``fit`` begins with, from 0.
        weigh: where given, computes the pixels' weights; called from threads.
        share: as of ``Batches``; what is drawn for a photo does not depend on it.
    """

    def __init__(
        self,
        data: Labelled,
        batch_size: int,
        seed: int,
        augment: Augmenter | None = None,
        first_epoch: int = 0,
        weigh: OutlineWeights | None = None,
        share: Share | None = None,
    ) -> None:
        super().__init__()
        self._data = data
        self._batch_size = batch_size
        self._seed = seed
        self._augment = augment
        self._weigh = weigh
        self._share = share or _whole
        threads = min(8, usable_cores())  # more would only queue for the interpreter
        self._ahead = 2 * threads
        self._pool = ThreadPoolExecutor(threads, "batches")
        self._begin(first_epoch)

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._order = np.random.default_rng((self._seed, epoch)).permutation(len(self._data))
        self._coming: dict[int, Future[Batch]] = {}

    def on_epoch_end(self) -> None:
        self._begin(self._epoch + 1)
        self._prepare(0)  # while the validation goes on

    def __len__(self) -> int:
        return max(1, len(self._data) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        self._prepare(index)
        return self._coming[index].result()

    def _prepare(self, index: int) -> None:
        """Begin with this batch and those after it; all others are forgotten: an epoch may be left in its middle."""
        coming: dict[int, Future[Batch]] = {}
        for number in range(index, min(index + 1 + self._ahead, len(self))):
            known = self._coming.get(number)
            coming[number] = known or self._pool.submit(self._make, self._epoch, self._order, number)
        self._coming = coming

    def _make(self, epoch: int, order: np.ndarray, index: int) -> Batch:
        chosen = order[index * self._batch_size : (index + 1) * self._batch_size]
        photos, masks = self._data.photos[chosen], self._data.masks[chosen]
        part = self._share(len(chosen))
        if self._augment is not None:
            photos, masks = self._augment(photos, masks, (epoch, index), part)
        else:
            photos, masks = photos[part], masks[part]
        margin = round(self._data.margin * masks.shape[1] / self._data.masks.shape[1])  # pictures may be smaller
        truths = without_margin(masks, margin)
        if self._weigh is None:
            return photos, truths
        return photos, truths, self._weigh(truths)
