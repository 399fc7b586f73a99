"""Photos of a list, in shards: the same rows and bytes however many processes there are, and however often they die."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tarfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.helpers.commands import content
from tests.helpers.full_disk import disk_full_after
from tests.helpers.listed import write_list
from unet_runtime import SourceError
from unet_runtime.cli.run import command
from unet_runtime.core.files import temporary_sibling
from unet_runtime.io.manifest import Manifest, Shard, result_name

PHOTOS = 24
SHARDS = 3
REPETITIONS = 20 if os.environ.get("SLOW_TESTS") else 1
ROWS = 100_000  # of the test of memory
FORMS = {"files": ".jsonl", "parquet": ".parquet", "webdataset": ".tar"}

SCRIPT = (
    "import sys; import unet_runtime.io.shards as shards; shards.PART_ROWS = 2; sys.argv[0] = 'unet-run';"
    "from unet_runtime.cli.run import main; sys.exit(main())"
)
"""unet-run with parts so small that a few photos are several."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_list(tmp_path_factory.mktemp("listed"), PHOTOS)


def to_parquet(folder: Path, model: Path, output: str) -> list[object]:
    """Arguments that segment the photos of ``folder / "m.txt"``."""
    return ["--manifest", folder / "m.txt", "--results", "parquet", "--model", model, "-o", folder / output]


def unet_run(*arguments: object) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)), standalone_mode=False)


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def listed(path: Path, number: int = 1, total: int = 1) -> list[tuple[int, str, str]]:
    return [(row.number, row.photo, row.problem) for row in Manifest(str(path), Shard(number, total)).rows()]


def test_every_kind_of_manifest_names_the_same(tmp_path: Path) -> None:
    names = ["a.jpg", "b c/ü.jpg", 'q"uote,.jpg', "s3://bucket/d.jpg"]
    (tmp_path / "m.txt").write_bytes("\ufeff{}\r\n".format("\r\n".join(names)).encode())
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    (tmp_path / "m.csv").write_text("id,Path\n" + "".join(f"{number},{name}\n" for number, name in enumerate(quoted)))
    pq.write_table(pa.table({"size": [1, 2, 3, 4], "file_name": names}), tmp_path / "m.parquet")
    expected = [(number, name, "") for number, name in enumerate(names, 1)]
    for suffix in ("txt", "csv", "parquet"):
        assert listed(tmp_path / f"m.{suffix}") == expected


def test_shards_are_disjoint_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    path.write_text("".join(f"{number}.jpg\n" for number in range(1000)))
    together = []
    for number in range(1, 9):
        rows = listed(path, number, 8)
        assert rows == listed(path, number, 8)
        assert 80 < len(rows) < 180
        together += rows
    assert sorted(together) == listed(path)


def test_names_that_come_again(tmp_path: Path) -> None:
    """Whatever the shards, the first row is done, the others are errors; also where the paths differ in form only."""
    path = tmp_path / "m.txt"
    path.write_text("a.jpg\nb.jpg\n./a.jpg\n\nx/../a.jpg\n")
    for total in (1, 5):
        rows = []
        for number in range(1, total + 1):
            rows += listed(path, number, total)
        problems = {row[0]: row[2] for row in rows}
        assert problems.pop(4) == "row 4: names no photo, expected a path"
        assert problems == {
            1: "",
            2: "",
            3: "./a.jpg: row 3 repeats row 1: name each photo once",
            5: "x/../a.jpg: row 5 repeats row 1: name each photo once",
        }


def test_names_of_results() -> None:
    assert result_name("../../etc/x.jpg") == "__/__/etc/x.jpg"
    assert result_name("/x.jpg") == "x.jpg"


def test_many_rows_need_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("photo\n" + "".join(f"folder/of/photos/{number:08d}.jpg\n" for number in range(20_000)))
    tracemalloc.start()
    try:
        manifest = Manifest(str(path), Shard())
        assert sum(1 for _ in manifest.rows()) == manifest.count == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1_600_000  # less than their names
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", b"id,size\n1,2\n", "columns id, size, expected one that is called photo"),
        ("m.csv", b"", "columns none, expected one"),
        ("m.parquet", b"PAR1 and then nothing", "damaged, expected a manifest"),
        ("m.xlsx", b"PK", "expected a manifest, a file that ends as one of .txt, .csv, .parquet"),
        ("absent.txt", None, "no such file, expected a manifest"),
        ("m.txt", "photo.jpg\n".encode("utf-16"), "UTF-16, expected UTF-8"),
        ("m.txt", "photo.jpg\n".encode("utf-16-be"), "UTF-16, expected UTF-8"),
        ("m.csv", "photo\na.jpg\n".encode("utf-16-le"), "UTF-16, expected UTF-8"),
        ("m.csv", b"photo;size\na.jpg;1\n", "separate columns with commas"),
        ("m.csv", b"photo\tsize\na.jpg\t1\n", "separate columns with commas"),
    ],
)
def test_no_manifest(name: str, text: bytes | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text)
    with pytest.raises(SourceError, match=message):
        Manifest(str(tmp_path / name), Shard())


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"photo": [f"{number}.jpg" for number in range(1000)]}), path)
    whole = bytearray(path.read_bytes())
    whole[100:200] = bytes(100)
    path.write_bytes(whole)
    with pytest.raises(SourceError, match=r"m\.parquet: damaged"):
        Manifest(str(path), Shard())


@pytest.mark.parametrize("form", FORMS)
def test_shards_give_what_one_process_gives(form: str, photos: Path, colour_model: Path, tmp_path: Path) -> None:
    """Rows in the manifest's order, errors among them, and the bytes of each result."""
    common = ["--manifest", photos / "photos.txt", "--results", form, "--save", "mask,json", "--model", colour_model]
    tables = []
    for total in (1, SHARDS):
        out = tmp_path / f"{total}"
        codes = []
        for number in range(1, total + 1):
            assert total == 1 or unet_run("merge", out, "-o", tmp_path / "x").exception is not None
            codes.append(unet_run(*common, "--shard", f"{number}/{total}", "-o", out).return_value)
        assert sorted(codes) == [0] * (total - 1) + [1]
        assert unet_run("status", out).return_value == 1
        table = tmp_path / f"{total}{FORMS[form]}"
        assert unet_run("merge", out, "-o", table).return_value == 0
        tables.append(table)
    assert tables[0].read_bytes() == tables[1].read_bytes()
    rows = [*rows_of(tables[1], tmp_path / f"{SHARDS}")]
    assert [row["row"] for row in rows] == list(range(1, PHOTOS + 2))
    assert "absent.png: no such file, expected a photo" in rows[5]["error"]
    plain = tmp_path / "plain"
    unet_run(photos / "photos", "-o", plain, "--save", "mask", "--model", colour_model)
    for row in rows[:5] + rows[6:]:
        with Image.open(plain / f"{Path(row['photo']).stem}.mask.png") as expected:
            assert (row["width"], row["height"]) == expected.size
            assert np.array_equal(row["mask"], np.asarray(expected))


def rows_of(table: Path, out: Path) -> list[dict[str, Any]]:
    """What a merged table holds, read without unet-edge; ``mask`` as an array."""
    rows = []
    if table.suffix == ".jsonl":
        for line in table.read_text().splitlines():
            row = json.loads(line)
            if "results" in row:
                row["mask"] = np.asarray(Image.open(out / row["results"][0]))
            rows.append(row)
    elif table.suffix == ".parquet":
        for row in pq.read_table(table).to_pylist():
            if row["mask"]:
                row["mask"] = np.asarray(Image.open(pa.BufferReader(row["mask"])))
                assert json.loads(row["json"])["images"][0]["file_name"] == row["photo"]
            rows.append(row)
    else:
        with tarfile.open(table) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                key, _, suffix = member.name.partition(".")
                if suffix == "json":
                    rows.append(json.load(file))
                elif suffix == "mask.png":
                    assert int(key) == rows[-1]["row"]
                    rows[-1]["mask"] = np.asarray(Image.open(file))
    return rows


def test_lines_say_where_results_are(photos: Path, colour_model: Path, tmp_path: Path) -> None:
    common = ["--manifest", photos / "photos.txt", "--model", colour_model, "--save", "mask"]
    first = unet_run(*common, "-o", tmp_path / "a", "--json").stdout.splitlines()[0]
    assert json.loads(first)["results"] == [f"{tmp_path}/a/photos/00.png.mask.png"]
    first = unet_run(*common, "-o", tmp_path / "b", "--results", "parquet").stdout.splitlines()[0]
    assert first.startswith("photos/00.png: ")
    assert first.endswith(f"-> {tmp_path}/b/shard-00001-of-00001/part-000000.parquet")


@pytest.mark.parametrize("form", FORMS)
def test_killed_at_any_moment(form: str, photos: Path, colour_model: Path, tmp_path: Path) -> None:
    """After ``--resume`` the files and their bytes are those of a run that nobody disturbed."""
    common = ["--manifest", photos / "photos.txt", "--results", form, "--save", "mask", "--model", colour_model]
    shards = [[*common, "--shard", f"{number}/{SHARDS}"] for number in range(1, SHARDS + 1)]
    for process in [start(*shard, "-o", tmp_path / "undisturbed") for shard in shards]:
        process.wait(120)
    expected = content(tmp_path / "undisturbed")
    draw = random.Random(21)
    for repetition in range(REPETITIONS):
        out = tmp_path / f"{repetition}"
        running = [start(*shard, "-o", out) for shard in shards]
        for process in draw.sample(running, SHARDS - 1):
            time.sleep(draw.uniform(0, 0.6))
            process.kill()
        for process in running:
            process.wait(120)
        for process in [start(*shard, "-o", out, "--resume") for shard in shards]:
            assert process.wait(120) in (0, 1)
        found = content(out)
        left = [name for name in found if name.endswith(".part")]
        for name in left:  # of the killed: they are removed a day later
            del found[name]
        assert found == expected


@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk_on_one_worker(form: str, photos: Path, colour_model: Path, tmp_path: Path) -> None:
    """Rows with errors, or no part; the other worker is done; with ``--resume`` all is as if nothing had happened."""
    common = ["--manifest", photos / "photos.txt", "--results", form, "--save", "probabilities", "--model"]
    shards = [[*common, colour_model, "--shard", f"{number}/2"] for number in (1, 2)]
    for shard in shards:
        unet_run(*shard, "-o", tmp_path / "undisturbed")
    out = tmp_path / "out"
    with disk_full_after(8_000):  # bytes: less than a photo's probabilities, more than a table without them
        full = unet_run(*shards[0], "-o", out)
    if form == "files":
        assert full.return_value == 1
        lines = (out / "shard-00001-of-00002" / "part-000000.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert sum("cannot be written (File too large)" in row["error"] for row in rows) >= len(rows) - 1
    else:
        assert "cannot be written (File too large)" in str(full.exception)
    unet_run(*shards[1], "-o", out)
    assert unet_run("status", out).return_value == 1
    unet_run(*shards[0], "-o", out, "--resume")
    assert content(out) == content(tmp_path / "undisturbed")


def test_a_process_killed_before_its_first_note_is_resumed(photos: Path, colour_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "shard-00001-of-00001"
    folder.mkdir(parents=True)
    temporary_sibling(folder / "_shard.json").write_text('{"unet-e')
    arguments = ["--manifest", photos / "photos.txt", "--results", "webdataset", "--save", "mask", "--resume"]
    unet_run(*arguments, "--model", colour_model, "-o", tmp_path / "out")
    assert (folder / "part-000000.tar").is_file()


def test_what_failed_is_tried_again(photos: Path, colour_model: Path, tmp_path: Path) -> None:
    """``--resume`` keeps the rows that are done, and the missing photo may have come."""
    (tmp_path / "a.png").write_bytes((photos / "photos" / "00.png").read_bytes())
    (tmp_path / "m.txt").write_text("a.png\nb.png\n")
    arguments = to_parquet(tmp_path, colour_model, "out")
    assert unet_run(*arguments).return_value == 1
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    result = unet_run(*arguments, "--resume")
    assert (result.return_value, result.stdout.count("->")) == (0, 1)
    rows = pq.read_table(tmp_path / "out" / "shard-00001-of-00001").to_pylist()
    assert [row["error"] for row in rows] == [None, None]
    assert rows[0]["mask"]
    assert unet_run("status", tmp_path / "out").return_value == 0
    assert "->" not in unet_run(*arguments, "--resume").stdout


def test_other_options_are_done_anew(photos: Path, colour_model: Path, tmp_path: Path) -> None:
    common = ["--manifest", photos / "photos.txt", "--model", colour_model, "-o", tmp_path, "--resume"]
    for more, expected in (((), PHOTOS), ((), 0), (("--min-score", "0"), PHOTOS), (("--save", "mask,json"), PHOTOS)):
        assert unet_run(*common, *more).stdout.count("->") == expected


def test_one_folder_holds_one_set_of_shards(photos: Path, colour_model: Path, tmp_path: Path) -> None:
    common = ["--manifest", photos / "photos.txt", "--model", colour_model, "-o", tmp_path]
    unet_run(*common, "--shard", "1/4")
    assert "holds 4 shards of files, this is one of 5 of files" in str(unet_run(*common, "--shard", "1/5").exception)
    other = tmp_path / "other"
    (other / "shard-00001-of-00001").mkdir(parents=True)
    (other / "shard-00001-of-00001" / "mine.txt").write_text("text")
    common[-1] = other
    assert "has files that unet-run did not make (mine.txt)" in str(unet_run(*common).exception)
    assert (other / "shard-00001-of-00001" / "mine.txt").read_text() == "text"


def test_status(photos: Path, colour_model: Path, tmp_path: Path) -> None:
    common = ["--manifest", photos / "photos.txt", "--model", colour_model, "-o", tmp_path]
    for number in (2, 4):
        unet_run(*common, "--shard", f"{number}/4")
    text = unet_run("status", tmp_path).stdout
    assert "not begun: 1, 3" in text
    state = json.loads(unet_run("status", tmp_path, "--json").stdout)
    assert (state["complete"], state["total"], state["not_begun"]) == (False, 4, [1, 3])
    assert state["rows"] == state["done"] == sum(shard["done"] for shard in state["shards"])
    assert "shards 1, 3 of 4 are not done" in str(unet_run("merge", tmp_path, "-o", "x.jsonl").exception)
    assert "holds no shards" in str(unet_run("status", tmp_path / "absent").exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "0/4"], "expected K/N with K from 1 to N"),
        (["--shard", "5/4"], "expected K/N"),
        (["--shard", "4"], "expected K/N"),
        (["photo.jpg"], "--manifest together with photo.jpg"),
        (["--webcam"], "--webcam has no meaning with --manifest"),
        (["--coco", "x.json"], "--coco has no meaning"),
        (["--output", "x.png"], "is a file, --manifest saves in a folder"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], message: str) -> None:
    assert message in str(unet_run("--manifest", "m.txt", *arguments).exception.format_message())  # type: ignore[union-attr]


def test_shards_are_of_a_manifest() -> None:
    assert "--shard without --manifest" in str(unet_run("x.jpg", "--shard", "1/2").exception)
    assert "--results without --manifest" in str(unet_run("x.jpg", "--results", "parquet").exception)


def test_a_merged_table_replaces_nothing(photos: Path, colour_model: Path, tmp_path: Path) -> None:
    unet_run("--manifest", photos / "photos.txt", "--model", colour_model, "-o", tmp_path / "out")
    (tmp_path / "all.jsonl").write_text("mine")
    merge = ["merge", tmp_path / "out", "-o", tmp_path / "all.jsonl"]
    assert "exists: name another file, or insist with --overwrite" in str(unet_run(*merge).exception)
    assert unet_run(*merge, "--overwrite").return_value == 0
    assert "name a file that ends as .jsonl" in str(unet_run("merge", tmp_path / "out", "-o", "x.tar").exception)


@pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="minutes: set SLOW_TESTS=1")
def test_memory_does_not_grow_with_the_list(colour_model: Path, tmp_path: Path) -> None:
    """Resident memory of the process at a fifth of the rows, and at its end."""
    names = []
    for index in range(ROWS):
        path = tmp_path / f"{index // 1000:03d}" / f"{index:06d}.png"
        if index % 1000 == 0:
            path.parent.mkdir()
            Image.new("RGB", (16, 16), (index // 1000, 80, 90)).save(path)
        else:
            os.link(path.with_name(f"{index // 1000 * 1000:06d}.png"), path)
        names.append(str(path))
    (tmp_path / "m.txt").write_text("\n".join(names))
    arguments = to_parquet(tmp_path, colour_model, "o")
    program = [sys.executable, "-c", "from unet_runtime.cli.run import main; main()"]
    resident = []
    with subprocess.Popen([*program, *map(str, arguments)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        for number, _ in enumerate(process.stdout, 1):
            if number % (ROWS // 50) == 0 and number < ROWS:
                status = Path(f"/proc/{process.pid}/status").read_text()
                resident.append(int(status.partition("VmRSS:")[2].split()[0]))
    assert process.returncode == 0
    assert max(resident[25:]) - max(resident[5:15]) < 10_000, resident  # KiB
