"""Scores, and photos that show nothing of what the model looks for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.commands import unet_run
from unet_runtime import Segmentation, Segmenter
from unet_runtime.core.spec import ClassSpec, ModelSpec

RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)
DULL_RED = (130, 126, 126)  # the class red with a probability of 0.43


def striped(*colours: tuple[int, int, int]) -> np.ndarray:
    """uint8 (32, 32 * n, 3): a square of each colour."""
    return np.concatenate([np.full((32, 32, 3), colour, np.uint8) for colour in colours], axis=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_colour_model(tmp_path / "colours.onnx", colour_spec(32))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Red is a cat, green the background, blue a dog."""
    classes = (
        ClassSpec("cat", RED, "foreground"),
        ClassSpec("ground", GREEN, "background"),
        ClassSpec("dog", BLUE, "foreground"),
    )
    return write_colour_model(tmp_path / "pets.onnx", replace(colour_spec(32), classes=classes))


def test_a_score_is_the_mean_probability_of_a_class_in_its_region(model: Path) -> None:
    segmenter = Segmenter(model)
    result = segmenter(np.full((32, 32, 3), DULL_RED, np.uint8))
    assert result.score("red") == pytest.approx(float(result.probabilities[..., 0].mean()), abs=1e-6)
    assert 0.4 < result.score("red") < 0.5
    assert result.score("green") == 0
    mixed = segmenter(striped(RED, DULL_RED, GREEN, GREEN))
    assert mixed.score("red") == pytest.approx(0.72, abs=0.05)
    with pytest.raises(ValueError, match="class 'pet', expected one of red, green, blue"):
        result.score("pet")


def test_found_asks_for_score_and_share(model: Path) -> None:
    segmenter = Segmenter(model)
    dull = segmenter(striped(DULL_RED, GREEN))
    assert dull.found() == ()
    assert dull.found(min_score=0.4) == ("red",)
    bright = segmenter(striped(RED, GREEN, GREEN, GREEN))
    assert bright.found() == ("red",)
    assert bright.found(min_share=0.2) == ("red",)
    assert bright.found(min_share=0.3) == ()
    assert segmenter(striped(GREEN)).found(min_score=0) == ()  # no region at all


def test_tiles_have_the_same_scores(model: Path) -> None:
    segmenter = Segmenter(model)
    photo = striped(RED, DULL_RED, GREEN)
    tiled = segmenter.tiled(photo, 0)
    pixels = np.concatenate([band for _, band in tiled.probability_bands()])
    assert tiled.score("red") == pytest.approx(float(pixels[..., 0][tiled.mask == 0].mean()), abs=1e-5)
    assert tiled.found() == ("red",)


def check_emptied(result: Segmentation, kept: Segmentation) -> None:
    background = kept.spec.roles("background")[0]
    assert (kept.mask == background).all()
    assert not kept.opacity.any()
    assert not np.asarray(kept.cutout()).any()
    assert np.array_equal(np.asarray(kept.overlay()), np.asarray(kept.photo))
    rows = np.concatenate([band for _, band in kept.probability_bands()])
    np.testing.assert_allclose(rows.sum(-1), 1, atol=1e-5)
    assert (rows[..., background] > 0.999).all()
    assert kept.scores == result.scores


def test_a_result_without_what_was_not_found_is_background(model: Path) -> None:
    """The neutral class goes too: it is the border of nothing."""
    segmenter = Segmenter(model)
    result = segmenter(striped(RED, BLUE, GREEN))
    check_emptied(result, result.only([]))
    tiled = segmenter.tiled(striped(RED, BLUE, GREEN))
    check_emptied(tiled, tiled.only([]))  # type: ignore[arg-type]
    assert result.only(["red"]) is result


def test_of_two_classes_one_is_found(pets: Path) -> None:
    segmenter = Segmenter(pets)
    photo = striped(RED, GREEN, (126, 126, 130))
    for result in (segmenter(photo), segmenter.tiled(photo, 0)):
        assert result.found() == ("cat",)
        kept = result.only(result.found())
        assert set(np.unique(result.mask).tolist()) == {0, 1, 2}
        assert set(np.unique(kept.mask).tolist()) == {0, 1}
        assert (kept.mask[:, 4:28] == 0).all()
        assert (kept.mask[:, 36:60] == 1).all()
        rows = np.concatenate([band for _, band in kept.probability_bands()])
        assert np.array_equal(rows.argmax(-1), kept.mask)
        assert kept.scores == result.scores


def test_what_is_not_there_changes_nothing(pets: Path) -> None:
    """A class without a region, as most are in a photo: the model's probabilities stay as they are."""
    result = Segmenter(pets)(striped(RED, GREEN))
    assert result.only(result.found()) is result


def test_a_model_without_background_keeps_its_classes(tmp_path: Path) -> None:
    roles = ("foreground", "foreground", "neutral")
    spec: ModelSpec = colour_spec(32)
    classes = tuple(replace(entry, role=role) for entry, role in zip(spec.classes, roles, strict=True))
    segmenter = Segmenter(write_colour_model(tmp_path / "own.onnx", replace(spec, classes=classes)))
    result = segmenter(striped(RED, GREEN))
    assert result.only([]) is result


def test_nothing_found_is_a_result(pets: Path, tmp_path: Path) -> None:
    """Exit code 0; the line, the JSON, the data set and the pictures all say the same."""
    Image.fromarray(striped(GREEN, GREEN)).save(tmp_path / "wall.png")
    Image.fromarray(striped(DULL_RED, GREEN)).save(tmp_path / "shadow.png")
    Image.fromarray(striped(RED, GREEN)).save(tmp_path / "cat.png")
    names = ("wall.png", "shadow.png", "cat.png")
    options = ("--model", pets, "--save", "mask,cutout,json", "--coco", "all.json")
    done = unet_run(*names, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("wall.png: no cat, dog found -> ")
    assert lines[1].startswith("shadow.png: no cat, dog found (score 0.4")
    assert lines[2].startswith("cat.png: cat 50% (score 1.00), dog 0% (score 0.00) -> ")
    assert "2 of 3 photos: no cat, dog found" in done.stderr
    data = json.loads((tmp_path / "all.json").read_text())
    assert [entry["image_id"] for entry in data["annotations"]] == [3]
    assert len(data["images"]) == 3
    assert json.loads((tmp_path / "shadow.json").read_text())["annotations"] == []
    with Image.open(tmp_path / "shadow.mask.png") as mask, Image.open(tmp_path / "shadow.cutout.png") as cutout:
        assert (np.asarray(mask) == 1).all()
        assert not np.asarray(cutout).any()

    done = unet_run(*names, "--model", pets, "--json", "--min-score", "0.3", cwd=tmp_path)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["found"] for entry in found] == [False, True, True]
    assert 0.4 < found[1]["classes"]["cat"]["score"] < 0.5
    assert 0.4 < found[1]["classes"]["cat"]["share"] < 0.6

    done = unet_run(*names, "--model", pets, "--json", "--min-share", "0.6", cwd=tmp_path)
    assert [json.loads(line)["found"] for line in done.stdout.splitlines()] == [False] * 3


def test_other_thresholds_are_other_results(pets: Path, tmp_path: Path) -> None:
    Image.fromarray(striped(DULL_RED, GREEN)).save(tmp_path / "shadow.png")
    options = ("shadow.png", "--model", pets, "--save", "mask")
    unet_run(*options, cwd=tmp_path)
    assert "1 photos were done before" in unet_run(*options, "--resume", cwd=tmp_path).stderr
    again = unet_run(*options, "--resume", "--min-score", "0.1", cwd=tmp_path)
    assert again.stdout.startswith("shadow.png: cat 4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.png", "--min-score", "1.5"), "--min-score"),
        (("a.png", "--min-share", "nan"), "--min-share"),
        (("a.png", "--refine", "--tile"), "--refine and --tile: tiles have the photo's own size"),
        (("--webcam", "--refine"), "--refine is for photos and videos"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    Image.fromarray(striped(RED)).save(tmp_path / "a.png")
    done = unet_run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
