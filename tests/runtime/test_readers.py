"""A mask's pixel value is the class id, whichever program reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from unet_runtime import Segmentation, Segmenter
from unet_runtime.io.sinks import encode, save

Ids = npt.NDArray[np.generic]


def pillow(path: Path) -> Ids:
    return np.asarray(Image.open(path))


def opencv(path: Path) -> Ids:
    cv2 = pytest.importorskip("cv2")
    plain = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), plain)
    assert np.array_equal(cv2.imread(str(path))[..., 0], plain)  # the default: three equal channels
    return np.asarray(plain)


def scikit_image(path: Path) -> Ids:
    return np.asarray(pytest.importorskip("skimage.io").imread(path))


def imageio(path: Path) -> Ids:
    return np.asarray(pytest.importorskip("imageio.v3").imread(path))


def tensorflow(path: Path) -> Ids:
    tf = pytest.importorskip("tensorflow")
    decoded = tf.io.decode_png(tf.io.read_file(str(path)))  # as many channels as the file has
    assert decoded.shape[-1] == 1
    return np.asarray(decoded)[..., 0]


def matplotlib(path: Path) -> Ids:
    shares = pytest.importorskip("matplotlib.image").imread(str(path))  # float32: it divides by 255
    return np.asarray(np.rint(shares * 255).astype(np.uint8))


@pytest.fixture(scope="module")
def result(sample_photo: Path) -> Segmentation:
    return Segmenter()(sample_photo)


@pytest.mark.parametrize("read", [pillow, opencv, scikit_image, imageio, tensorflow, matplotlib])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_mask_holds_class_ids(read: Callable[[Path], Ids], result: Segmentation, tmp_path: Path) -> None:
    (path,) = save(result, ("mask",), tmp_path, "cat")
    assert np.array_equal(read(path), result.mask)
    result.mask_image().save(tmp_path / "library.png")
    assert np.array_equal(read(tmp_path / "library.png"), result.mask)


@pytest.mark.parametrize("read", [pillow, opencv, scikit_image, imageio])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_tiff_mask_holds_class_ids(read: Callable[[Path], Ids], result: Segmentation, tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    path.write_bytes(encode(result, "mask", suffix=".tif"))
    assert np.array_equal(read(path), result.mask)


def test_the_palette_form_shows_colours(result: Segmentation, tmp_path: Path) -> None:
    (path,) = save(result, ("palette",), tmp_path, "cat")
    cv2 = pytest.importorskip("cv2")
    colours = np.array([entry.color for entry in result.spec.classes], np.uint8)
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], colours[result.mask])
    assert np.array_equal(pillow(path), result.mask)
