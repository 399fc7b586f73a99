"""Results as files: right, whole, or not there."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from PIL import Image

from tests.helpers.memory import traced_peak
from unet_runtime import OutputError, Segmentation, Segmenter
from unet_runtime.core.files import replacing
from unet_runtime.core.segmentation import Result
from unet_runtime.io.kind import Checkpoint, Kind, Metadata
from unet_runtime.io.sinks import KINDS, RESULTS, encode, result_path, save
from unet_runtime.io.stamps import is_current, mark, stamp


@pytest.fixture(scope="module")
def result(sample_photo: Path) -> Segmentation:
    return Segmenter()(sample_photo)


def test_pictures_are_what_the_segmentation_shows(result: Segmentation, tmp_path: Path) -> None:
    """Written in bands, equal to the pictures made whole."""
    paths = save(result, ("mask", "palette", "overlay", "cutout"), tmp_path / "new" / "folder", "cat")
    pictures = (result.mask_image(), result.palette_image(), result.overlay(), result.cutout())
    for path, whole in zip(paths, pictures, strict=True):
        with Image.open(path) as written:
            assert written.mode == whole.mode
            assert np.array_equal(np.asarray(written), np.asarray(whole))
            assert np.array_equal(np.asarray(written.convert("RGB")), np.asarray(whole.convert("RGB")))
    assert [path.name for path in paths] == [
        "cat.mask.png",
        "cat.palette.png",
        "cat.overlay.png",
        "cat.cutout.png",
    ]


def test_numpy_loads_the_probabilities(result: Segmentation, tmp_path: Path) -> None:
    (path,) = save(result, ("probabilities",), tmp_path, "cat")
    with np.load(path) as data:
        probabilities = data["probabilities"]
        assert probabilities.dtype == np.float16
        assert probabilities.shape == (300, 451, 3)
        assert data["classes"].tolist() == ["pet", "background", "border"]
    bands = np.concatenate([band for _, band in result.probability_bands()])
    assert np.array_equal(probabilities, bands.astype(np.float16))
    assert (probabilities.argmax(-1) == result.mask).mean() > 0.999  # float16 makes a few ties


def test_json_names_photo_and_engine(result: Segmentation, tmp_path: Path) -> None:
    (path,) = save(result, ("json",), tmp_path, "cat", Metadata("cat.jpg", "Engine 1", "none"))
    document = json.loads(path.read_text())
    assert document["images"][0]["file_name"] == "cat.jpg"
    assert document["info"]["engine"] == "Engine 1"


def test_large_results_need_no_memory_of_their_own(sample_photo: Path, tmp_path: Path) -> None:
    """12 megapixels: 36 MB of RGB and 72 MB of probabilities go through bands of a few MB."""
    setup = """
from PIL import Image
from unet_runtime import Segmenter
from unet_runtime.io.sinks import save
with Image.open(sys.argv[1]) as photo:
    large = photo.convert("RGB").resize((4000, 3000))
result = Segmenter()(large)
assert result.mask.nbytes == result.opacity.nbytes == 12_000_000  # made before
"""
    work = 'save(result, ("mask", "overlay", "cutout", "probabilities"), Path(sys.argv[2]), "large")'
    assert traced_peak(setup, work, sample_photo, tmp_path) < 24e6


def test_names_as_long_as_a_file_system_takes(result: Segmentation, tmp_path: Path) -> None:
    stem = "x" * (255 - len(".mask.png"))
    assert save(result, ("mask",), tmp_path, stem)[0].is_file()


def write_half(target: Path) -> None:
    with replacing(target, "see --output-dir") as file:
        file.write(b"half")
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kind", RESULTS)
def test_a_failure_leaves_the_old_file(kind: str, tmp_path: Path, result: Segmentation) -> None:
    target = result_path(kind, tmp_path, "cat")
    save(result, (kind,), tmp_path, "cat")
    before = target.read_bytes()
    with pytest.raises(OutputError, match=r"No space left on device.*--output-dir"):
        write_half(target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_a_new_kind_is_one_entry_of_the_table(
    result: Segmentation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(result: Result, file: BinaryIO, metadata: Metadata, checkpoint: Checkpoint) -> None:
        file.write(f"{metadata.photo} {result.mask.shape} ".encode() + mark(metadata.stamp))

    monkeypatch.setitem(KINDS, "shape", Kind(".shape.txt", write))
    metadata = Metadata("cat.jpg", stamp="0123")
    (path,) = save(result, ("shape",), tmp_path, "cat", metadata)
    assert path.name == "cat.shape.txt"
    assert path.read_bytes() == encode(result, "shape", metadata) == b"cat.jpg (300, 451) unet-edge\x000123"
    photo = tmp_path / "cat.jpg"
    photo.touch()
    os.utime(photo, (0, 0))
    assert is_current(photo, [path], "0123")


def test_a_folder_that_cannot_be_made(result: Segmentation, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot be written \(Not a directory\): see --output-dir"):
        save(result, ("mask",), tmp_path / "file" / "sub", "cat")


def test_a_folder_in_the_place_of_a_result(result: Segmentation, tmp_path: Path) -> None:
    (tmp_path / "cat.mask.png").mkdir()
    with pytest.raises(OutputError, match=r"cat\.mask\.png: cannot be written \(Is a directory\)"):
        save(result, ("mask",), tmp_path, "cat")
    assert [path.name for path in tmp_path.iterdir()] == ["cat.mask.png"]


def test_a_label_tools_json_is_not_replaced(result: Segmentation, tmp_path: Path) -> None:
    path = tmp_path / "cat.json"
    path.write_text('{"shapes": []}')
    with pytest.raises(OutputError, match="was not made by unet-run"):
        save(result, ("json",), tmp_path, "cat")
    assert path.read_text() == '{"shapes": []}'
    path.unlink()
    save(result, ("json",), tmp_path, "cat")
    save(result, ("json",), tmp_path, "cat")  # our own is


@pytest.mark.parametrize(("steps", "left"), [(0, []), (1, []), (2, ["cat.mask.png"]), (3, ["cat.mask.png"])])
def test_nothing_is_written_after_a_stop(steps: int, left: list[str], result: Segmentation, tmp_path: Path) -> None:
    """Each of the two files has two checkpoints: at its beginning and at its only band."""
    passed = []

    def checkpoint() -> None:
        if len(passed) == steps:
            raise KeyError("stop")
        passed.append(1)

    with pytest.raises(KeyError, match="stop"):
        save(result, ("mask", "overlay"), tmp_path, "cat", checkpoint=checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == left


def test_current_results(result: Segmentation, tmp_path: Path, sample_photo: Path) -> None:
    photo = tmp_path / "cat.jpg"
    photo.write_bytes(sample_photo.read_bytes())
    ours = stamp(result.spec.to_json(), tile=None)
    paths = save(result, RESULTS, tmp_path, "cat", Metadata(stamp=ours))
    assert is_current(photo, paths, ours)
    assert not is_current(photo, [*paths, tmp_path / "more.png"], ours)
    for path in paths:  # each carries the stamp
        assert not is_current(photo, [path], stamp(result.spec.to_json(), tile=0.25)), path
    os.utime(photo, (time.time() + 5, time.time() + 5))
    assert not is_current(photo, paths, ours)


def test_stamps_tell_models_and_options_apart(result: Segmentation) -> None:
    text = result.spec.to_json()
    stamps = {stamp(text, a=1, b=2), stamp(text, a=2, b=1), stamp(text + " ", a=1, b=2), stamp(text)}
    assert len(stamps) == 4
    assert stamp(text, a=1, b=2) == stamp(text, b=2, a=1)


def test_encoded_bytes_are_the_files(result: Segmentation, tmp_path: Path) -> None:
    (path,) = save(result, ("cutout",), tmp_path, "cat")
    assert encode(result, "cutout") == path.read_bytes()
