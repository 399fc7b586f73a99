"""The report of a training: its page, its pictures, and what it does where something is missing."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests.helpers.colours import colour_spec
from tests.helpers.trained import Trained
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import open_dataset, read_split
from unet_runtime.core.errors import OutputError
from unet_runtime.core.metrics import confusion, iou
from unet_training import report
from unet_training.data.dataset import load
from unet_training.data.pairs import Labelled
from unet_training.errors import TrainingInterruptedError
from unet_training.evaluate import Evaluation, Model, evaluate, evaluate_decoded, load_model
from unet_training.models.unet import build
from unet_training.pipeline import Result
from unet_training.report import curves, panels, plots
from unet_training.report.stages import stages

DRAWN = {f"{name}.png" for name in report.PICTURES}
"""The pictures of eight photos of three breeds."""

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A page's elements and text; refuses one that is not closed as it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self.text += " " if tag in {"td", "th", "p", "h1", "h2", "h3"} else ""

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@dataclass
class Written:
    folder: Path
    result: Result

    @property
    def page(self) -> Page:
        return Page((self.folder / report.REPORT).read_text(encoding="utf-8"))


Write = Callable[[Result], Written]


@pytest.fixture(scope="session")
def result(trained: Trained, pictures: Path) -> Result:
    """What the command's training made, its photos named as if of three breeds."""
    spec = read_artifact(trained.output / "model.keras").spec
    photos = load(read_split(open_dataset(pictures), "official", "test"), spec.input)
    names = [
        f"{breed}_{index}"
        for index, breed in enumerate(["pug", "pug", "pug", "beagle", "beagle", "shiba_inu", "shiba_inu", "pug"])
    ]
    history = {
        "loss": [5.0, 4.0],
        "cross_entropy": [0.75, 0.5],
        "val_loss": [9.0, 0.625],
        "mean_iou": [0.25, 0.5],
        "val_mean_iou": [0.25, 0.375],
        "pixel_accuracy": [0.5, 0.75],
        "val_pixel_accuracy": [0.5, 0.5],
    }
    metrics = {**spec.provenance.metrics, "epoch": 2}
    spec = replace(spec, provenance=replace(spec.provenance, metrics=metrics))
    return Result(trained.output / "model.keras", spec, history, replace(photos, names=names))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(result: Result) -> Written:
        report.write_report(result, tmp_path)
        return Written(tmp_path, result)

    return written


@pytest.fixture(scope="session")
def written(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("report") / "new"
    report.write_report(result, folder)
    return Written(folder, result)


# --- the page --------------------------------------------------------------------------------------


def test_the_page_holds_its_pictures_and_loads_nothing(written: Written) -> None:
    page = written.page
    images = page.all("img")
    assert len(images) == len(DRAWN)
    for attributes in images:
        head, data = attributes["src"].split(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            image.load()
            assert image.format == "PNG"
        assert attributes["alt"]
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    text = (written.folder / report.REPORT).read_text(encoding="utf-8")
    assert not any(word in text for word in ("http://", "https://", "url(", "@import"))


def test_the_pictures_lie_beside_the_page_and_are_the_same(written: Written) -> None:
    assert {path.name for path in written.folder.iterdir()} == {report.REPORT, *DRAWN}
    embedded = {base64.b64decode(image["src"].split(",")[1]) for image in written.page.all("img")}
    assert embedded == {(written.folder / name).read_bytes() for name in DRAWN}


def test_the_page_describes_the_training(written: Written) -> None:
    text, provenance = " ".join(written.page.text.split()), written.result.spec.provenance
    for words in (
        "best epoch 2 of 2",
        "on 8 test photos",
        "pet IoU",
        "seed 1",
        "warmup epochs",
        "loss (cross-entropy) 0.5000 0.6250 +0.1250",
        "mean IoU 0.5000 0.3750 \N{MINUS SIGN}0.1250",
        provenance.command,
        provenance.data,
        provenance.weights_sha256,
        provenance.tools["keras"],
    ):
        assert words in text
    assert f"{provenance.metrics['mean_iou']:.4f}" in text
    assert "interrupted" not in text
    assert text.index("Gap: validation less train") < text.index("warmup epochs")  # what it found before how
    assert ("A demo. This model" in text) == provenance.data.startswith("synthetic,")


def test_metrics_are_those_of_the_evaluation(written: Written, result: Result) -> None:
    evaluation = _evaluation(result)
    assert evaluation.overall.mean_iou == pytest.approx(result.spec.provenance.metrics["mean_iou"], abs=1e-4)
    text = written.page.text
    assert f"{evaluation.overall.mean_iou:.4f}" in text
    assert f"{evaluation.overall.boundary_f1:.4f}" in text


def test_an_interrupted_training_of_one_photo_without_history_has_a_report(write: Write, result: Result) -> None:
    spec, photos = result.spec, result.test
    metrics = {**spec.provenance.metrics, "split": "validation"}
    spec = replace(spec, provenance=replace(spec.provenance, metrics=metrics))
    one = Labelled(["x"], photos.photos[:1], photos.masks[:1], [])
    text = " ".join(write(replace(result, spec=spec, test=one, history={})).page.text.split())
    assert "The training was interrupted" in text
    assert "on 1 validation photo" in text
    assert "recorded no epoch" in text
    assert "Worst" in text


def test_hostile_names_are_text(write: Write, result: Result) -> None:
    evil = '<script>alert("1")</script>&<img/src=x>$\\frac$'
    spec = replace(
        result.spec, name=evil, provenance=replace(result.spec.provenance, command=evil, data=evil, recipe={evil: evil})
    )
    names = [f"{evil}_{index}" if index % 2 else f"{chr(0x4E00 + index)}\n_{index}" for index in range(8)]
    written = write(replace(result, spec=spec, test=replace(result.test, names=names, problems=[evil])))
    page = written.page
    assert not page.all("script")
    assert len(page.all("img")) == len(DRAWN - {"breeds.png"})
    assert page.text.count(evil) >= 6


def test_one_group_makes_no_bars_and_takes_old_ones_away(write: Write, result: Result, tmp_path: Path) -> None:
    (tmp_path / "breeds.png").write_bytes(b"of an earlier training")
    names = [f"synthetic_{index}" for index in range(8)]
    written = write(replace(result, test=replace(result.test, names=names)))
    assert "Breeds" not in written.page.text
    assert not (written.folder / "breeds.png").exists()


# --- the model's stages ----------------------------------------------------------------------------


def test_a_u_net_has_its_stages(written: Written) -> None:
    model = build(32, 32, 3, filters=2)
    found = stages(model)
    names = [stage.name for stage in found]
    assert names[2:7] == ["encoder1", "encoder2", "encoder3", "encoder4", "bridge"]
    assert names[7:] == ["decoder4", "decoder3", "decoder2", "decoder1", "logits", "probabilities"]
    assert sum(stage.parameters for stage in found) == model.count_params()
    by_name = dict(zip(names, found, strict=True))
    times = "\N{MULTIPLICATION SIGN}"
    assert by_name["encoder2"].output == f"16{times}16{times}4"
    assert by_name["encoder2"].layers == (
        f"2 Conv2D 3{times}3, 2 BatchNormalization, 2 Activation, MaxPooling2D 2{times}2"
    )


def test_the_page_lists_the_stages(written: Written) -> None:
    text = " ".join(written.page.text.split())
    assert "stage layers output" in text
    assert "encoder1" in text


# --- panels, curves, plots -------------------------------------------------------------------------


def _model(result: Result) -> Model:
    return load_model(result.model)


def test_worst_is_worst_and_best_is_best(written: Written, result: Result) -> None:
    masks = keras.models.load_model(result.model, compile=False).predict(result.test.photos, verbose=0).argmax(axis=-1)
    own = {
        name: float(np.nanmean(iou(confusion([truth], [mask], 3))))
        for name, truth, mask in zip(result.test.names, result.test.masks, masks, strict=True)
    }
    # Which those are test_choice_of_photos knows: of equals, as a network of two epochs has, the order is its own.
    chosen = panels.choose(list(own.values()), seed=1)
    for kind in ("worst", "best"):
        listed = ", ".join(f"{name} {own[name]:.3f}" for name in [result.test.names[index] for index in chosen[kind]])
        assert f"from the left: {listed}." in written.page.text


def test_choice_of_photos() -> None:
    scores = [0.5, math.nan, 0.9, 0.1, 0.7, 0.3]
    chosen = panels.choose(scores, seed=1, count=2)
    assert (chosen["best"], chosen["worst"]) == ([2, 4], [3, 5])
    assert len(chosen["random"]) == 2
    assert chosen == panels.choose(scores, seed=1, count=2)
    drawn = {tuple(panels.choose(scores, seed=seed, count=2)["random"]) for seed in range(20)}
    assert len(drawn) > 3
    assert all(1 not in pair for pair in drawn)
    assert panels.choose([0.4], seed=1) == {"best": [0], "worst": [0], "random": [0]}
    assert panels.choose([math.nan], seed=1) == {"best": [], "worst": [], "random": []}
    assert len(panels.choose(scores, seed=1)["best"]) == 2  # of five, none on both sides


def test_gaps_compare_the_cross_entropy_where_there_is_one(result: Result) -> None:
    assert [gap.validation - gap.train for gap in curves.gaps(result.history, 2)] == [0.125, -0.125, -0.25]
    older = {name: values for name, values in result.history.items() if name != "cross_entropy"}
    assert curves.gaps(older, 2)[0].train == 4.0
    assert curves.gaps(result.history, 3) == []


def test_many_groups_are_cut_and_a_class_that_never_occurs_has_no_share(result: Result, tmp_path: Path) -> None:
    evaluation = _evaluation(result)
    group = evaluation.overall
    many = replace(evaluation, breeds={f"b{index}": replace(group, mean_iou=index / 100) for index in range(100)})
    picture = plots.breed_bars(many, tmp_path / "breeds.png")
    assert picture is not None
    assert picture.caption == "The best 30 and the worst 30 of 100 groups."
    assert "b99 0.990, b98" in picture.alt
    assert picture.alt.endswith("b1 0.010, b0 0.000.")
    shares = [[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [math.nan] * 3]
    alt = plots.confusion_matrix(replace(evaluation, confusion_shares=shares), tmp_path / "confusion.png").alt
    assert "background taken for pet 25.0 %" in alt
    assert "border taken" not in alt


def test_a_letterboxed_photo_is_measured_and_drawn_within_its_frame(tmp_path: Path) -> None:
    class Oracle:
        """Predicts what its photo shows: red is class 0, green 1."""

        name, device, engine, note = "oracle", "cpu", "Oracle", ""

        def run(self, images: np.ndarray) -> np.ndarray:
            return (images > 127).astype(np.float32)

    photo, truth = np.zeros((1, 32, 32, 3), np.uint8), np.full((1, 32, 32), 255, np.uint8)
    photo[0, :, :, 0], photo[0, 8:24, 16:, :2] = 255, (0, 255)
    truth[0, 8:24, :16], truth[0, 8:24, 16:] = 0, 1
    photos = Labelled(["x_1"], photo, truth, [])
    spec = colour_spec(fit="letterbox")
    evaluation, scores = evaluate_decoded(Model(spec, Oracle()), photos, part="test")
    assert scores == [1.0]
    assert evaluation.confusion == [[256, 0, 0], [0, 256, 0], [0, 0, 0]]
    assert math.isnan(evaluation.overall.own_size_mean_iou)
    panels.draw(Model(spec, Oracle()), photos, scores, [0], tmp_path / "best.png")
    with Image.open(tmp_path / "best.png") as drawn:
        colors = {color for _, color in drawn.convert("RGB").getcolors(1 << 20) or []}
    assert {(255, 0, 0), (0, 255, 0), (255, 255, 255)} <= colors


def _evaluation(result: Result) -> Evaluation:
    return evaluate_decoded(_model(result), result.test, part="test")[0]


def test_metrics_in_memory_are_those_from_files(result: Result, pictures: Path) -> None:
    files, memory = evaluate(_model(result), pictures), _evaluation(result)
    assert (memory.confusion, memory.calibration_error) == (files.confusion, files.calibration_error)
    assert memory.overall.boundary_f1 == files.overall.boundary_f1
    assert math.isnan(memory.overall.own_size_mean_iou)
    assert {name: group.photos for name, group in memory.breeds.items()} == {"beagle": 2, "pug": 4, "shiba_inu": 2}


# --- files and endings -----------------------------------------------------------------------------


def test_a_report_that_cannot_be_written_says_so(result: Result, tmp_path: Path) -> None:
    (tmp_path / "best.png").mkdir()
    with pytest.raises(OutputError, match=r"best\.png: cannot be written"):
        report.write_report(result, tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_ctrl_c_says_that_the_model_is_whole(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(curves, "draw", interrupt)
    with pytest.raises(TrainingInterruptedError, match=r"model\.keras is whole") as caught:
        report.write_report(result, tmp_path)
    assert caught.value.exit_code == 130


def test_the_command_says_where_the_report_is(trained: Trained) -> None:
    assert str(trained.output / report.REPORT) in trained.ended.out
    page = Page((trained.output / report.REPORT).read_text(encoding="utf-8"))
    assert "Breeds" not in page.text  # generated pictures are of one kind
