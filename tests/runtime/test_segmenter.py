"""Photo in, Segmentation out."""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import pickle
import re
import tempfile
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from signal import alarm
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.colours import colour_model_bytes, colour_spec, write_colour_model
from tests.helpers.convolution import convolution_spec, write_convolution
from unet_runtime import BackendError, ImageError, ModelFileError, Segmenter
from unet_runtime.core.artifact import append_to_onnx, append_to_tflite
from unet_runtime.core.install import pip_command
from unet_runtime.core.spec import InputSpec, OutputSpec

ENGINES = ["onnx", "openvino"]


@pytest.mark.parametrize("backend", ENGINES)
def test_known_picture(backend: str, colour_model: Path, stripes: np.ndarray) -> None:
    result = Segmenter(colour_model, backend=backend)(stripes)
    assert result.mask.shape == (40, 60)
    for index, middle in enumerate((8, 30, 52)):
        assert (result.mask[:, middle - 7 : middle + 8] == index).all()
    assert result.probabilities.shape == (32, 32, 3)
    assert result.probabilities.dtype == np.float32


def test_path_image_and_array_agree(colour_model: Path, stripes: np.ndarray, tmp_path: Path) -> None:
    segmenter = Segmenter(colour_model)
    path = tmp_path / "photo.png"
    Image.fromarray(stripes).save(path)
    masks = [segmenter(photo).mask for photo in (path, str(path), Image.fromarray(stripes), stripes)]
    assert all(np.array_equal(masks[0], mask) for mask in masks)


def test_bytes_and_files_are_photos(colour_model: Path, stripes: np.ndarray, tmp_path: Path) -> None:
    segmenter = Segmenter(colour_model)
    path = tmp_path / "photo.png"
    Image.fromarray(stripes).save(path)
    content = path.read_bytes()
    expected = segmenter(stripes).mask
    read = io.BytesIO(content)
    read.read(10)  # as after somebody looked at its beginning
    for photo in (content, bytearray(content), memoryview(content), io.BytesIO(content), read):
        assert np.array_equal(segmenter(photo).mask, expected)
    with path.open("rb") as file, tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(content)
        assert np.array_equal(segmenter(file).mask, expected)
        assert np.array_equal(segmenter(spooled).mask, expected)  # type: ignore[arg-type]
        assert not file.closed
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe, os.fdopen(writer, "wb") as source:
        source.write(content)
        source.close()
        assert np.array_equal(segmenter(pipe).mask, expected)
    assert [result.mask.shape for result in segmenter.batch([content, path])] == [(40, 60), (40, 60)]
    assert [result.mask.shape for result in segmenter.stream([io.BytesIO(content)])] == [(40, 60)]


def test_grey_and_transparent_arrays_are_photos(colour_model: Path, stripes: np.ndarray) -> None:
    segmenter = Segmenter(colour_model)
    grey = np.arange(40 * 60, dtype=np.uint8).reshape(40, 60)
    for array in (grey, grey[..., np.newaxis]):
        assert np.array_equal(np.asarray(segmenter(array).photo), np.repeat(grey[..., np.newaxis], 3, axis=-1))
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:20] = 0
    seen = np.asarray(segmenter(np.concatenate([stripes, alpha], axis=-1)).photo)
    assert (seen[:20] == 255).all()  # as of a file: transparent is white paper
    assert np.array_equal(seen[20:], stripes[20:])


def test_arrays_of_opencv_are_photos(colour_model: Path, stripes: np.ndarray) -> None:
    segmenter = Segmenter(colour_model)
    swapped = np.ascontiguousarray(stripes[..., ::-1])
    alpha = np.full((40, 60, 1), 255, np.uint8)
    for array in (swapped, np.concatenate([swapped, alpha], axis=-1)):
        result = segmenter(array, channels="bgr")
        assert np.array_equal(result.mask, segmenter(stripes).mask)
        assert np.array_equal(np.asarray(result.photo), stripes)
    grey = np.full((4, 6), 9, np.uint8)
    assert np.asarray(segmenter(grey, channels="bgr").photo).max() == 9
    assert np.array_equal(segmenter.tiled(swapped, channels="bgr").mask, segmenter.tiled(stripes).mask)
    with pytest.raises(ValueError, match="channels 'brg', expected 'rgb' or 'bgr'"):
        segmenter(stripes, channels="brg")  # type: ignore[arg-type]


def test_what_is_no_photo_is_said_to_be_none(colour_model: Path, tmp_path: Path) -> None:
    async def read(size: int = -1) -> bytes:
        return b""

    segmenter = Segmenter(colour_model)
    upload = type("Upload", (), {"read": staticmethod(read)})()
    for photo, message in (
        (io.StringIO("text"), 'read.. gives str, expected a binary one: open it with mode "rb"'),
        (upload, r"read\(\) gives coroutine, expected a binary one"),
        (b"no photo", "not an image"),
        (b"", "input"),
        (np.zeros((4, 4, 3), np.float32), r"array float32\(4, 4, 3\), expected uint8.*astype"),
        (np.zeros((4, 4, 2), np.uint8), "expected uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), "expected uint8"),
        (3, "photo of type int, expected a path, bytes, a binary file"),
    ):
        with pytest.raises(ImageError, match=message):
            segmenter(photo)  # type: ignore[arg-type]


@pytest.mark.parametrize("start", ["spawn", "forkserver", "fork"])
def test_each_process_of_a_pool_has_an_engine_of_its_own(start: str, colour_model: Path, stripes: np.ndarray) -> None:
    segmenter = Segmenter(colour_model, threads=1)
    expected = segmenter(stripes)
    with ProcessPoolExecutor(2, multiprocessing.get_context(start)) as pool:
        for result in pool.map(segmenter, [stripes] * 4):
            assert np.array_equal(result.mask, expected.mask)
            assert np.array_equal(result.probabilities, expected.probabilities)


def test_a_forked_process_loads_its_own_engine(colour_model: Path, stripes: np.ndarray) -> None:
    """ONNX Runtime's threads are not forked: a run that needs them would never end."""
    segmenter = Segmenter(colour_model, threads=2)
    expected = segmenter(stripes).mask
    before = segmenter.backend
    child = os.fork()
    if child == 0:
        alarm(180)  # ends a child that waits for ever
        same = np.array_equal(segmenter(stripes).mask, expected) and segmenter.backend is not before
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert segmenter.backend is before


def test_a_copy_has_the_settings_of_the_original(colour_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(colour_model.read_bytes())
    segmenter = Segmenter(path, backend="openvino", threads=1)
    sent = pickle.dumps(segmenter)
    assert len(sent) < 3000  # not the weights
    again = pickle.loads(sent)
    assert (again.spec, again.backend.name, again._origin) == (segmenter.spec, "openvino", segmenter._origin)
    write_colour_model(path, replace(colour_spec(), name="another"))
    with pytest.raises(ModelFileError, match=r"own\.onnx: has changed since"):
        pickle.loads(sent)
    segmenter.close()
    with pytest.raises(BackendError, match="closed"):
        pickle.dumps(segmenter)


def test_pictures(colour_model: Path, stripes: np.ndarray) -> None:
    result = Segmenter(colour_model)(stripes)
    mask = result.mask_image()
    coloured = result.palette_image()
    assert (mask.mode, coloured.mode) == ("L", "P")
    assert np.array_equal(np.asarray(mask), result.mask)
    assert np.array_equal(np.asarray(coloured), result.mask)
    assert coloured.convert("RGB").getpixel((5, 5)) == (255, 0, 0)
    overlay = np.asarray(result.overlay())
    assert np.array_equal(overlay[:, 25:35], stripes[:, 25:35])  # background keeps the photo's pixels
    cutout = np.asarray(result.cutout())
    assert (cutout[20, 5, 3], cutout[20, 30, 3]) == (255, 0)
    is_red = np.asarray(result.opacity) == 255
    assert np.array_equal(cutout[is_red, :3], stripes[is_red])
    assert not cutout[20, 30].any()  # nothing of the photo is left in the background


def test_letterboxed_model(tmp_path: Path, stripes: np.ndarray) -> None:
    model = write_colour_model(tmp_path / "box.onnx", colour_spec(30, fit="letterbox"))
    mask = Segmenter(model)(stripes).mask
    for index, middle in enumerate((8, 30, 52)):
        assert (mask[:, middle - 6 : middle + 7] == index).all()


def test_batch(colour_model: Path) -> None:
    backend = Segmenter(colour_model).backend
    batch = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    together = backend.run(batch)
    for index in range(3):
        np.testing.assert_allclose(backend.run(batch[index : index + 1])[0], together[index], atol=1e-6)


@pytest.mark.parametrize("backend", ["onnx", "tflite", "openvino"])
def test_a_batch_is_what_its_photos_are_alone(backend: str, sample_photo: Path) -> None:
    """ONNX Runtime and OpenVINO take all in one call; a .tflite file's batch is fixed at 1."""
    segmenter = Segmenter(backend=backend)
    photos = [sample_photo, Image.open(sample_photo).rotate(90, expand=True), np.full((40, 60, 3), 200, np.uint8)]
    results = segmenter.batch(photos)
    assert [result.mask.shape for result in results] == [(300, 451), (451, 300), (40, 60)]
    for photo, result in zip(photos, results, strict=True):
        np.testing.assert_allclose(result.probabilities, segmenter(photo).probabilities, atol=1e-5)
    assert segmenter.batch([]) == []
    with pytest.raises(ImageError, match="absent"):
        segmenter.batch([sample_photo, "absent.jpg"])


def test_a_batch_is_one_call_of_the_engine(colour_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = Segmenter(colour_model)
    sizes = []
    run = segmenter.backend.run
    monkeypatch.setattr(segmenter.backend, "run", lambda images: [sizes.append(len(images)), run(images)][1])
    assert len(segmenter.batch([np.zeros((9, 9, 3), np.uint8)] * 5)) == 5
    assert sizes == [5]


def test_a_file_whose_batch_is_fixed_runs_photo_by_photo(tmp_path: Path, stripes: np.ndarray) -> None:
    segmenter = Segmenter(write_convolution(tmp_path / "fixed.onnx", convolution_spec(0), batch=1))
    photos = [stripes, stripes[::-1], stripes[:, ::-1]]
    for photo, result in zip(photos, segmenter.batch(photos), strict=True):
        assert np.array_equal(result.probabilities, segmenter(photo).probabilities)


def test_a_closed_segmenter_says_so(colour_model: Path, stripes: np.ndarray) -> None:
    with Segmenter(colour_model) as segmenter:
        result = segmenter(stripes)
    assert result.mask.shape == (40, 60)  # its result stays
    for call in (segmenter, lambda photo: segmenter.batch([photo]), segmenter.tiled, lambda _: segmenter.backend):
        with pytest.raises(BackendError, match="this segmenter is closed: make a new one"):
            call(stripes)
    segmenter.close()


def test_closing_frees_the_model(colour_model: Path) -> None:
    segmenter = Segmenter(colour_model)
    backend = weakref.ref(segmenter.backend)
    segmenter.close()
    gc.collect()
    assert backend() is None


def test_mask_and_opacity_are_made_once(colour_model: Path, stripes: np.ndarray) -> None:
    result = Segmenter(colour_model)(stripes)
    assert result.mask is result.mask
    assert result.opacity is result.opacity
    assert np.array_equal(np.asarray(result.cutout().getchannel("A")), result.opacity)
    rows = np.concatenate([band for _, band in result.probability_bands()])
    assert (rows.shape, rows.dtype) == ((40, 60, 3), np.float32)
    assert np.array_equal(rows.argmax(-1), result.mask)


def test_an_rgb_image_is_not_copied(colour_model: Path, stripes: np.ndarray) -> None:
    """100 megapixels are 400 MB; everything else becomes a new picture."""
    segmenter = Segmenter(colour_model)
    image = Image.fromarray(stripes)
    assert segmenter(image).photo is image
    turned = image.copy()
    turned.getexif()[0x0112] = 6
    assert segmenter(turned).photo.size == (40, 60)
    assert turned.size == (60, 40)


def test_an_image_that_turns_out_damaged_when_it_is_decoded(colour_model: Path, sample_photo: Path) -> None:
    image = Image.open(io.BytesIO(sample_photo.read_bytes()[:5000]))
    with pytest.raises(ImageError, match="truncated"):
        Segmenter(colour_model)(image)


@pytest.mark.parametrize("photo", [None, 3, [[1, 2, 3]]])
def test_what_is_no_photo(photo: object, colour_model: Path) -> None:
    with pytest.raises(
        ImageError, match=r"photo of type .*, expected a path, bytes, a binary file, a Pillow image, or"
    ):
        Segmenter(colour_model)(photo)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"input": InputSpec(64, 64), "output": OutputSpec(64, 64)},
            r"input is uint8\(.*\), its spec says .*64, 64, 3",
        ),
        ({"input": InputSpec(32, 32, margin=8), "output": OutputSpec(16, 16)}, r"output .* its spec says .*16, 16, 3"),
        ({"classes": colour_spec().classes[:2]}, r"output .* its spec says .*32, 32, 2"),
    ],
)
def test_a_spec_that_is_not_its_model_s(changes: dict[str, Any], named: str, backend: str, tmp_path: Path) -> None:
    """A margin that the graph has not would shift every area without a word: found when the model is loaded."""
    spec = replace(colour_spec(), **changes)
    (tmp_path / "wrong.onnx").write_bytes(append_to_onnx(colour_model_bytes(colour_spec()), spec))
    with pytest.raises(ModelFileError, match=named):
        Segmenter(tmp_path / "wrong.onnx", backend=backend)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_whose_output_is_no_number(
    value: float, colour_model: Path, stripes: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As float16 does where it overflows: an error, not a mask of class 0."""
    segmenter = Segmenter(colour_model)
    run = segmenter.backend.run

    def broken(images: np.ndarray) -> np.ndarray:
        outputs = run(images)
        outputs[0, 3:5, 4, 1] = value, -value
        return outputs

    monkeypatch.setattr(segmenter.backend, "run", broken)
    for call in (segmenter, segmenter.tiled):
        with pytest.raises(BackendError, match=r"output has NaN or infinity, .* colours float32 does not work on ONNX"):
            call(stripes)


@pytest.mark.parametrize("backend", ["onnx", "tflite", "openvino"])
def test_threads_share_one_segmenter(backend: str, sample_photo: Path) -> None:
    segmenter = Segmenter(backend=backend, threads=1)
    photos = [Image.open(sample_photo).rotate(90 * turn, expand=True) for turn in range(4)]
    expected = [segmenter(photo).mask for photo in photos]
    with ThreadPoolExecutor(4) as pool:
        for turn, result in enumerate(pool.map(segmenter, photos * 4)):
            assert np.array_equal(result.mask, expected[turn % 4])


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((4,), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        Image.new("RGB", (0, 3)),
    ],
    ids=["one-axis", "five-channels", "float64", "empty", "empty-image"],
)
def test_bad_input(photo: np.ndarray, colour_model: Path) -> None:
    with pytest.raises(ImageError, match="expected"):
        Segmenter(colour_model)(photo)


def test_backend_choice(colour_model: Path, tmp_path: Path) -> None:
    assert Segmenter(colour_model).backend.name == "onnx"
    with pytest.raises(BackendError, match=r"reads \.tflite"):
        Segmenter(colour_model, backend="tflite")
    with pytest.raises(BackendError, match="expected one of onnx"):
        Segmenter(colour_model, backend="torch")
    with pytest.raises(BackendError, match="expected one of auto"):
        Segmenter(colour_model, device="tpu")
    with pytest.raises(BackendError, match=r"expected \.onnx or \.tflite"):
        Segmenter(tmp_path / "model.pt")


def test_engine_refuses_an_undamaged_file(tmp_path: Path) -> None:
    """The digest is right, the content is not a model: the engine's error, in ours."""
    (tmp_path / "odd.onnx").write_bytes(append_to_onnx(b"", colour_spec()))
    (tmp_path / "odd.tflite").write_bytes(append_to_tflite(bytes(64), colour_spec()))
    with pytest.raises(ModelFileError, match=r"ONNX Runtime .* refuses"):
        Segmenter(tmp_path / "odd.onnx")
    with pytest.raises(ModelFileError, match="OpenVINO refuses"):
        Segmenter(tmp_path / "odd.onnx", backend="openvino")
    with pytest.raises(ModelFileError, match="LiteRT refuses"):
        Segmenter(tmp_path / "odd.tflite")


def test_cuda_is_never_pretended(colour_model: Path) -> None:
    """Here the CPU wheel is installed: an explicit cuda is an error that says what to install."""
    with pytest.raises(BackendError, match=f"no NVIDIA driver was found|{re.escape(pip_command('cuda'))}"):
        Segmenter(colour_model, device="cuda")
    with pytest.raises(BackendError, match="LiteRT does not run on it, expected auto, cpu"):
        Segmenter(backend="tflite", device="cuda")
    assert Segmenter(colour_model, device="auto").backend.device == "cpu"


def test_engine_failure_is_a_backend_error(colour_model: Path) -> None:
    with pytest.raises(BackendError, match=r"uint8\(1, 8, 8, 3\)"):
        Segmenter(colour_model).backend.run(np.zeros((1, 8, 8, 3), np.uint8))
