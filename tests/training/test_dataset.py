"""Splits, what cannot be used and why, batches; and the real photos where PETS_DIR has them."""

from __future__ import annotations

import queue
import shutil
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_runtime.core.datasets import Sample, evenly, open_dataset, read_split
from unet_runtime.core.errors import SourceError
from unet_runtime.core.spec import InputSpec
from unet_training.data.augment import Augmenter
from unet_training.data.dataset import Batches, TrainingBatches, load, split_dataset
from unet_training.data.pairs import Labelled
from unet_training.errors import DatasetError

SPEC = InputSpec(32, 48)


def _names(photos: list[Sample]) -> list[str]:
    return [photo.name for photo in photos]


def test_the_official_split_takes_validation_from_trainval_and_leaves_test_alone(pictures: Path) -> None:
    split = split_dataset(open_dataset(pictures), "official", validation=5, seed=1)
    train, validation, test = map(_names, (split.train, split.validation, split.test))
    assert sorted(train + validation) == [f"synthetic_{index:04}" for index in range(1, 25)]
    assert test == [f"synthetic_{index:04}" for index in range(25, 33)]
    assert (len(train), len(validation)) == (19, 5)
    assert not set(train) & set(validation)


def test_the_validation_photos_depend_on_the_seed_alone(pictures: Path) -> None:
    chosen = [_names(split_dataset(open_dataset(pictures), "official", 5, seed).validation) for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_validation_takes_no_more_than_a_quarter(pictures: Path) -> None:
    assert len(split_dataset(open_dataset(pictures), "official", validation=200, seed=1).validation) == 6


def test_the_article_split_holds_a_thousand_of_all_kinds_out(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations" / "trimaps").mkdir(parents=True)
    for index in range(2100):  # the split looks at names only
        (tmp_path / "images" / f"p{index:04}.jpg").touch()
        (tmp_path / "annotations" / "trimaps" / f"p{index:04}.png").touch()
    split = split_dataset(open_dataset(tmp_path), "article", validation=1000, seed=1)
    train, test = _names(split.train), _names(split.test)
    assert sorted(train + test) == [f"p{index:04}" for index in range(2100)]
    assert (len(train), len(test)) == (1100, 1000)
    assert test == _names(split.validation)
    assert {"p0678", "p1363", "p1498"} <= set(test)  # as the article's shuffle leaves them
    assert 400 < sum(name < "p1050" for name in test) < 600  # names tell the breed: no breed is held out whole


def test_a_random_split_takes_validation_from_its_trainval_and_leaves_test_alone(pictures: Path) -> None:
    first, second = (split_dataset(open_dataset(pictures), "random:7", validation=5, seed=seed) for seed in (1, 2))
    assert first.test == second.test == read_split(open_dataset(pictures), "random:7", "test")
    train, validation, test = map(_names, (first.train, first.validation, first.test))
    assert sorted(train + validation + test) == [f"synthetic_{index:04}" for index in range(1, 33)]
    assert len(validation) == 5
    assert validation != _names(second.validation)
    assert _names(split_dataset(open_dataset(pictures), "random:8", validation=5, seed=1).test) != test


@pytest.mark.parametrize("split", ["random:", "random:x", "random:-1"])
def test_a_split_without_a_seed_is_refused(split: str, pictures: Path) -> None:
    with pytest.raises(SourceError, match=rf"split '{split}': expected official, article, random:SEED or fold:K/N"):
        split_dataset(open_dataset(pictures), split, validation=5, seed=1)


def test_a_missing_list_is_named(pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "unlisted"
    shutil.copytree(pictures, root)
    (root / "annotations" / "trainval.txt").unlink()
    with pytest.raises(SourceError, match=r"the trainval part is missing, found: test \(8\)"):
        split_dataset(open_dataset(root), "official", 5, seed=1)


def test_a_photo_in_both_lists_is_refused(pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "leaking"
    shutil.copytree(pictures, root)
    with (root / "annotations" / "test.txt").open("a") as lines:
        lines.write("synthetic_0003 1 1 1\n")
    with pytest.raises(DatasetError, match=r"1 photos are in the training part and in the test .*\(synthetic_0003\)"):
        split_dataset(open_dataset(root), "official", 5, seed=1)


def test_photos_are_fitted_to_the_model(pictures: Path) -> None:
    photos = split_dataset(open_dataset(pictures), "official", 5, seed=1).test
    data = load(photos, SPEC)
    assert (data.photos.shape, data.photos.dtype) == ((8, 32, 48, 3), np.uint8)
    assert (data.masks.shape, data.masks.dtype) == ((8, 32, 48), np.uint8)
    assert set(np.unique(data.masks)) == {0, 1, 2}
    assert (data.names, data.problems) == (_names(photos), [])


@pytest.fixture
def damaged(pictures: Path, tmp_path: Path) -> Path:
    """A copy in which the first five pictures are broken in five ways."""
    root = tmp_path / "damaged"
    shutil.copytree(pictures, root)
    photo = [root / "images" / f"synthetic_{index:04}.jpg" for index in range(1, 6)]
    trimap = [root / "annotations" / "trimaps" / f"synthetic_{index:04}.png" for index in range(1, 6)]
    photo[0].unlink()
    Image.new("L", (20, 10), 1).save(trimap[1])
    with Image.open(trimap[2]) as image:
        Image.fromarray(np.asarray(image) * 2).save(trimap[2])
    photo[3].write_bytes(photo[3].read_bytes()[:400])
    photo[4].write_text("not a picture")
    return root


def test_what_cannot_be_used_is_left_out_named_and_told_why(damaged: Path) -> None:
    split = split_dataset(open_dataset(damaged), "official", 0, seed=1)
    data = load(split.train, SPEC)
    assert len(data) == len(data.photos) == len(data.masks) == 19
    expected = ["no such file", "labels of (20, 10)", "trimap values 2..6, expected 1..3", "truncated", "not an image"]
    for index, (problem, words) in enumerate(zip(data.problems, expected, strict=True), start=1):
        assert f"synthetic_{index:04}" in problem
        assert words in problem


def test_the_rest_is_the_same_as_without_the_damage(damaged: Path, pictures: Path) -> None:
    whole = load(split_dataset(open_dataset(pictures), "official", 0, seed=1).train, SPEC)
    rest = load(split_dataset(open_dataset(damaged), "official", 0, seed=1).train, SPEC)
    assert rest.names == whole.names[5:]
    np.testing.assert_array_equal(rest.photos, whole.photos[5:])
    np.testing.assert_array_equal(rest.masks, whole.masks[5:])


def test_nothing_usable_is_an_error(damaged: Path) -> None:
    with pytest.raises(DatasetError, match=r"none of 2 photos can be used; the first: .*synthetic_0001"):
        load(split_dataset(open_dataset(damaged), "official", 0, seed=1).train[:2], SPEC)


@pytest.fixture
def numbered() -> Labelled:
    """Ten one-pixel photos, each holding its own number."""
    numbers = np.arange(10, dtype=np.uint8)
    photos = np.broadcast_to(numbers[:, None, None, None], (10, 1, 1, 3)).copy()
    return Labelled([str(n) for n in numbers], photos, numbers[:, None, None] % 3, [])


def _epoch(batches: Batches | TrainingBatches) -> list[list[int]]:
    order = [batches[index][0][:, 0, 0, 0].tolist() for index in range(len(batches))]
    batches.on_epoch_end()
    return order


def test_an_evaluation_takes_all_photos_in_their_order(numbered: Labelled) -> None:
    batches = Batches(numbered, 4)
    assert _epoch(batches) == _epoch(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_each_epoch_of_a_training_has_its_own_order_and_every_photo_once(numbered: Labelled) -> None:
    batches, again = (TrainingBatches(numbered, 5, seed=1) for _ in range(2))
    first, second = _epoch(batches), _epoch(batches)
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second
    assert [_epoch(again), _epoch(again)] == [first, second]


def test_an_epoch_depends_on_the_seed_and_its_number_alone(numbered: Labelled) -> None:
    unbroken = TrainingBatches(numbered, 5, seed=1)
    epochs = [_epoch(unbroken) for _ in range(3)]
    assert _epoch(TrainingBatches(numbered, 5, seed=1, first_epoch=2)) == epochs[2]
    assert _epoch(TrainingBatches(numbered, 5, seed=2)) != epochs[0]


def test_a_training_drops_a_smaller_last_batch(numbered: Labelled) -> None:
    assert [len(batch) for batch in _epoch(TrainingBatches(numbered, 4, seed=1))] == [4, 4]
    assert [len(batch) for batch in _epoch(TrainingBatches(numbered, 64, seed=1))] == [10]


def test_an_epoch_left_in_its_middle_leaves_nothing_for_the_next(numbered: Labelled) -> None:
    batches, whole = (TrainingBatches(numbered, 2, seed=1) for _ in range(2))
    expected = [_epoch(whole), _epoch(whole)]
    assert batches[0][0].shape == (2, 1, 1, 3)  # what Keras reads first of all, to learn the shapes
    assert batches[3][0][:, 0, 0, 0].tolist() == expected[0][3]
    batches.on_epoch_end()
    assert _epoch(batches) == expected[1]


def test_the_next_batches_are_prepared_meanwhile(numbered: Labelled) -> None:
    asked: queue.Queue[tuple[int, int]] = queue.Queue()

    class Watched(Augmenter):
        def __call__(
            self, photos: np.ndarray, masks: np.ndarray, number: tuple[int, int], part: slice = slice(None)
        ) -> tuple[np.ndarray, np.ndarray]:
            asked.put(number)
            return photos, masks

    batches = TrainingBatches(numbered, 3, seed=1, augment=Watched(1))
    batches[0]
    # Two at least, whatever the machine; in the order in which threads come to it.
    assert {asked.get(timeout=60) for _ in range(3)} == {(0, 0), (0, 1), (0, 2)}
    batches.on_epoch_end()
    assert {asked.get(timeout=60) for _ in range(3)} == {(1, 0), (1, 1), (1, 2)}


def test_what_goes_wrong_in_a_thread_is_raised_where_the_batch_is_asked_for(numbered: Labelled) -> None:
    class Broken(Augmenter):
        def __call__(
            self, photos: np.ndarray, masks: np.ndarray, number: tuple[int, int], part: slice = slice(None)
        ) -> tuple[np.ndarray, np.ndarray]:
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        TrainingBatches(numbered, 2, seed=1, augment=Broken(1))[0]


@pytest.mark.parametrize("of", [Batches, partial(TrainingBatches, seed=1)])
def test_masks_stay_with_their_photos(numbered: Labelled, of: Callable[..., Batches]) -> None:
    photos, masks = of(numbered, 5)[1]
    np.testing.assert_array_equal(masks[:, 0, 0], photos[:, 0, 0, 0] % 3)


def test_augmented_batches_keep_shapes_and_types_and_are_the_same_again(pictures: Path) -> None:
    data = load(split_dataset(open_dataset(pictures), "official", 5, seed=1).test, SPEC)
    runs = [TrainingBatches(data, 4, seed=1, augment=Augmenter(1)) for _ in range(2)]
    photos, masks = runs[0][1]
    assert (photos.shape, photos.dtype) == ((4, 32, 48, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((4, 32, 48), np.uint8)
    for index in range(2):
        for one, other in zip(runs[0][index], runs[1][index], strict=True):
            np.testing.assert_array_equal(one, other)


def test_pictures_of_larger_photos_have_the_model_s_margin() -> None:
    photos = Labelled(["a", "b"], np.zeros((2, 64, 64, 3), np.uint8), np.zeros((2, 64, 64), np.uint8), [], margin=8)
    pictures, truths = TrainingBatches(photos, 2, seed=1, augment=Augmenter(1, size=32))[0]
    assert (pictures.shape, truths.shape) == ((2, 32, 32, 3), (2, 24, 24))


@pytest.mark.parametrize("split", ["official", "article", "random:7"])
def test_real_splits_are_disjoint(pets_dir: Path, split: str) -> None:
    photos = split_dataset(open_dataset(pets_dir), split, validation=200, seed=1)
    train, validation, test = (set(_names(part)) for part in (photos.train, photos.validation, photos.test))
    assert not train & test
    assert not train & validation
    assert len(train) > 2000
    assert len(test) >= 1000
    assert (validation == test) if split == "article" else (len(validation) == 200 and not validation & test)


def test_real_photos_load(pets_dir: Path) -> None:
    photos = evenly(split_dataset(open_dataset(pets_dir), "official", 200, seed=1).test, 48)
    data = load(photos, InputSpec(96, 96))
    assert (data.problems, len(data)) == ([], 48)
    share = np.bincount(data.masks.ravel(), minlength=3) / data.masks.size
    assert 0.15 < share[0] < 0.5  # pets fill about a third of the photos, their border a tenth
    assert 0.04 < share[2] < 0.25
    assert data.photos.reshape(48, -1).std(axis=1).min() > 5  # pictures, not blank frames
