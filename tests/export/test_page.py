"""The page for people: what it says, and what it must never say."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.exported import TFLITE, Export
from tests.helpers.results import FLOAT, INT8, NO_CUDA, SPEC, WORSE, artifact, engine, metrics, report
from tests.helpers.rows import MACHINE
from unet_export.formats import FORMATS
from unet_export.gate.gate import EngineResult, Panel, Refusal
from unet_export.photos import Photo, PhotoSets
from unet_export.report.numbers import percent, scientific, signed
from unet_export.report.page import render
from unet_export.report.pictures import DIFFERENT, histogram, lengths, pictures
from unet_export.report.recommend import activation_bytes

VOID = {"meta", "img"}


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results made by hand have no files."""
    monkeypatch.setattr("unet_export.report.recommend.activation_bytes", lambda path: 54321)


pytestmark = pytest.mark.usefixtures("memory")


def plain(text: str) -> str:
    """Minus signs and dashes as a keyboard has them."""
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")


class Page(HTMLParser):
    """A page's elements and text; refuses one that is not closed as it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.marked: dict[str, list[str]] = {}
        """Text by the class of the element right around it."""
        self._open: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attributes}
        self.elements.append((tag, known))
        if tag not in VOID:
            self._open.append((tag, known.get("class", "")))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] != "style" and data.strip():
            self.words.append(plain(" ".join(data.split())))
            self.marked.setdefault(self._open[-1][1], []).append(self.words[-1])

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def panel(name: str = "cat.jpg", side: int = 16) -> Panel:
    """The artifact calls the four pixels of the upper left corner class 1, the trained model calls all 0."""
    actual = np.zeros((side, side), np.uint8)
    actual[:2, :2] = 1
    return Panel(name, np.full((side, side, 3), 200, np.uint8), np.zeros((side, side), np.uint8), actual)


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_an_accepted_export_says_so_and_what_was_not_checked() -> None:
    page = Page(render(report(FLOAT, INT8)))
    assert "✓ Accepted." in page.text
    assert "Rejected" not in page.text
    assert "onnxruntime CUDA, for 1 artifact: no CUDA driver here" in page.text
    assert page.marked["passed"] == ["✓ Accepted.", *["✓ passed"] * 3]
    assert page.marked["unknown"] == ["not checked"]
    assert "failed" not in page.marked


def test_a_rejected_export_names_every_failure_with_its_numbers() -> None:
    page = Page(render(replace(report(FLOAT, WORSE), all_or_nothing=True)))
    assert "✗ Rejected. 1 of 2 artifacts failed. Nothing was accepted, not even what passed." in page.text
    assert "mean IoU drops 0.400 points, tolerance 0.3 (would pass at 0.4" in page.text
    assert "blue IoU drops 0.800 points, tolerance 0.5 (would pass at 0.8" in page.text
    assert "none was put in place" in page.text
    assert page.marked["failed"][:2] == ["✗ Rejected.", "✗ failed"]
    assert len(page.marked["failed"]) == 4  # and both drops in the table of tolerances
    assert "Accepted" not in page.text


def test_an_export_that_is_accepted_in_part_names_what_is_and_what_is_not() -> None:
    refusal = Refusal("tflite-int8", "odd.int8.tflite", "no such operator")
    page = Page(render(replace(report(FLOAT, WORSE), refused=(refusal,))))
    assert "✗ Accepted in part. 1 of 2 artifacts failed, 1 could not be made. Accepted: " in page.text
    assert "odd.int8.tflite : no such operator" in page.text
    assert "none was put in place" not in page.text


def test_an_artifact_that_no_engine_checked_is_nowhere_green() -> None:
    page = Page(render(report(artifact("onnx", 4000, NO_CUDA))))
    assert "passed" not in page.marked
    assert page.marked["unknown"] == ["none"] * 4 + ["not checked"]
    assert "not checked: no CUDA driver here" in page.text


def test_an_engine_that_refuses_the_file_has_a_verdict_and_no_metrics() -> None:
    broken = EngineResult("openvino", "cpu", "OpenVINO 1.0", None, failures=("does not open it: bad operator",))
    page = Page(render(report(artifact("onnx", 4000, engine("onnx", 20.0, metrics()), broken))))
    assert "OpenVINO 1.0: does not open it: bad operator" in page.text
    assert page.marked["failed"] == ["✗ Rejected.", "✗ failed"]


def test_an_export_of_nothing_is_not_accepted() -> None:
    page = Page(render(report()))
    assert "✗ Rejected. There is no artifact." in page.text


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    text = render(report(FLOAT, replace(INT8, panels=(panel(),)), calibration_study={16: metrics(-0.1)}))
    page = Page(text)
    (policy,) = (entry["content"] for entry in page.all("meta") if entry.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not page.all("script") + page.all("link") + page.all("iframe")
    assert all(entry["src"].startswith("data:image/") for entry in page.all("img"))
    assert all(entry["href"].startswith("#") for entry in page.all("a"))
    targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {entry["href"][1:] for entry in page.all("a")} <= targets
    assert "url(" not in text
    assert "@import" not in text


def test_names_are_text_whatever_they_hold() -> None:
    evil = "<script>alert(1)</script>\"'&.jpg"
    named = replace(INT8, path=Path("/nowhere") / evil.replace("/", ""), panels=(panel(evil),))
    whole = report(named, model=evil, command=f"unet-export {evil}", spec=replace(SPEC, name=evil))
    page = Page(render(whole))
    assert not page.all("script")
    assert f"Lowest agreement: {evil}" in page.text
    assert page.text.count(evil) >= 4
    assert page.text.count(named.path.name) >= 4
    assert {entry["alt"] for entry in page.all("img")} == {
        f"{kind}: {evil}" for kind in ("photo", "Keras", "artifact", "difference")
    }


def test_the_table_holds_sizes_times_ratios_and_changes() -> None:
    text = Page(render(report(FLOAT, INT8))).text
    name = INT8.path.name
    assert f"✓ passed {name} LiteRT 1.0 int8 1,000 8.00 2.5 99.500 0.7490 -0.10 blue 0.4980 -0.20" in text
    assert "✓ passed OpenVINO 1.0 16.0 1.2 99.995 0.7500 ≈ 0 red 0.9000 ≈ 0" in text
    assert "not checked onnxruntime CUDA - - - - - - - -" in text
    assert "LiteRT 1.0 1.00e-1 3.33e-2 3.33e-3 99.500 0.9900 0.9700" in text


def test_the_verdict_is_what_a_narrow_screen_shows_first() -> None:
    page = render(report(FLOAT, INT8))
    table = page[page.index('<section id="formats">') :]
    assert table.index(">verdict<") < table.index(">file<")
    assert page.index('id="use"') < page.index('id="formats"') < page.index('id="equality"')


def test_the_machine_is_named_and_whether_it_was_busy() -> None:
    quiet = Page(render(report(FLOAT, INT8, machine=MACHINE))).text
    assert "on Some CPU, 2 cores, load 0.1 when the export began" in quiet
    assert "2.5 times as fast as ONNX Runtime float32" in quiet
    assert "busy" not in quiet
    busy = Page(render(report(FLOAT, INT8, machine=replace(MACHINE, load=5.0)))).text
    assert "The machine was busy: these times are longer" in busy
    assert "2.5 times as fast as" not in busy


def test_a_demo_is_called_one() -> None:
    assert "A demo." not in Page(render(report(FLOAT))).text
    demo = replace(SPEC, provenance=replace(SPEC.provenance, data="synthetic, random:0 split, 48 photos"))
    assert "A demo. This model was trained on generated pictures" in Page(render(report(FLOAT, spec=demo))).text


def test_tolerances_stand_beside_the_smallest_that_pass() -> None:
    text = Page(render(report(FLOAT, WORSE))).text
    assert "ONNX Runtime 1.0 1e-5 1e-6 99.99 99.995 0.05 0 0.05 0" in text
    assert "LiteRT 1.0 1 0.1 99 99.5 0.3 0.41 0.5 0.81" in text


def test_without_float32_in_onnx_runtime_there_is_no_column_of_ratios() -> None:
    assert "speed" not in Page(render(report(INT8))).text


def test_without_trimaps_nothing_is_said_of_the_truth() -> None:
    blind = metrics()._replace(reference_iou={}, iou={}, pixels={})
    bare = PhotoSets([], [], [Photo("a.jpg", Path("a.jpg"), None)] * 64, "")
    page = Page(render(report(artifact("onnx", 4000, engine("onnx", 20.0, blind)), photos=bare)))
    assert "There are no label masks for these photos" in page.text
    assert "64, without label masks" in page.text
    assert "ONNX Runtime 1.0 float32 4,000 20.0 1 99.995 - - - - -" in page.text
    assert "1e-5 1e-6 99.99 99.995 0.05 - 0.05 -" in page.text


def test_what_is_not_a_number_is_shown_as_such_and_red() -> None:
    broken = metrics(math.nan, math.nan, math.nan)
    page = Page(render(report(artifact("onnx", 4000, engine("onnx", 20.0, broken)))))
    assert "NaN" in page.words
    assert page.marked["failed"].count("none") == 4


def test_a_histogram_has_a_bar_a_decade_and_its_tolerance() -> None:
    page = Page(render(report(FLOAT)))
    assert page.text.count("10⁻⁷ to 10⁻⁶ 100") == 2
    assert "ONNX Runtime 1.0: tolerance 1e-5, 99.9th percentile 3.33e-7" in page.text
    bars = histogram(FLOAT.engines[0], max_abs=1e-6)
    assert [bar.counted for bar in bars] == [5, 10, 100, 7]
    assert [bar.exceeds for bar in bars] == [False, False, False, True]  # from 1e-6 to 1e-5
    assert [bar.length for bar in bars] == pytest.approx([43.46, 56.54, 100, 49.81], abs=0.01)
    single = histogram(replace(FLOAT.engines[0], histogram=(0, 1, 0, 9)), max_abs=1.0)
    assert [bar.length > 0 for bar in single] == [True, False, True]  # a single difference is seen
    assert histogram(NO_CUDA, max_abs=1.0) == []


def test_pictures_show_photo_both_masks_and_where_they_differ() -> None:
    shown = pictures(panel(), SPEC)
    assert decoded(shown["photo"]).size == (16, 16)
    assert set(np.unique(np.array(decoded(shown["Keras"]).convert("RGB")).reshape(-1, 3), axis=0).ravel()) == {0, 255}
    assert decoded(shown["artifact"]).convert("RGB").getpixel((0, 0)) == SPEC.classes[1].color
    different = np.array(decoded(shown["difference"]).convert("RGB")) == DIFFERENT  # (h, w, 3)
    assert different.all(axis=-1).sum() == 4
    assert different[:2, :2].all()


def test_a_large_photo_is_reduced_and_a_single_pixel_still_seen() -> None:
    side = 1280
    rng = np.random.default_rng(1)
    actual = np.zeros((side, side), np.uint8)
    actual[side - 1, 0] = 2
    image = rng.integers(0, 256, (side, side, 3), np.uint8)
    large = Panel("large.jpg", image, np.zeros_like(actual), actual)
    difference = decoded(pictures(large, SPEC)["difference"]).convert("RGB")
    assert difference.size == (320, 320)
    assert difference.getpixel((0, 319)) == DIFFERENT
    assert len(render(report(*[replace(INT8, panels=(large,) * 3)] * 4))) < 3_000_000


def test_the_calibration_study_is_drawn_and_listed() -> None:
    study = {
        1: metrics(-2.0, agreement=0.97),
        200: metrics(0.125, agreement=0.9941),
    }
    page = Page(render(report(INT8, calibration_study=study)))
    assert "1 -2.0 -4.0 97.000 200 +0.12 ≈ 0 99.410" in page.text
    bars = [entry for entry in page.all("span") if entry.get("class", "").startswith("bar")][-6:]
    assert [entry["class"] for entry in bars] == ["bar bad", "bar bad", "bar", "bar", "bar", "bar"]
    assert [entry["style"] for entry in bars] == [
        f"width: {length}%" for length in ("100.0", "100.0", "100.0", "6.2", "1.6", "19.7")
    ]
    assert "Accuracy against calibration size" not in Page(render(report(INT8))).text


def test_bars_are_relative_to_the_longest() -> None:
    assert lengths([-1.0, None, 0.5]) == [100, 0, 50]
    assert lengths([None, 0.0]) == [0, 0]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (percent(1.0), "100.000"),
        (percent(0.999999), "99.999"),
        (percent(0.57), "57.000"),
        (percent(math.nan), "NaN"),
        (signed(0.065), "≈ 0"),
        (signed(-0.1), "-0.10"),
        (signed(0.25), "+0.25"),
        (signed(-1.0), "-1.0"),
        (signed(-23.4), "-23"),
        (signed(None), "-"),
        (scientific(0.0), "0"),
        (scientific(3.14159e-6), "3.14e-6"),
        (scientific(math.nan), "NaN"),
    ],
)
def test_numbers_are_written_for_people(shown: str, expected: str) -> None:
    assert plain(shown) == expected


def test_the_page_of_a_real_export_is_whole(exported: Export) -> None:
    page = Page((exported.folder / "report.html").read_text(encoding="utf-8"))
    assert "✓ Accepted." in page.text
    assert all(result.path.name in page.text for result in exported.results)
    assert page.text.count("Lowest agreement: test_") == sum(
        FORMATS[result.format].quantized for result in exported.results
    )
    assert not page.all("script")
    size = activation_bytes(exported.folder / TFLITE)
    assert f"{size:,} bytes of RAM for activations" in page.text
