"""Manifests, photos and results at addresses, against moto's S3 server on this machine."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from moto.server import ThreadedMotoServer
from PIL import Image

from unet_runtime import MissingDependencyError
from unet_runtime.cli.run import command
from unet_runtime.io.storage import storage

PHOTOS = 6
BUCKET = "s3://photos"


def unet_run(*arguments: object) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)), standalone_mode=False)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(f"http://{host}:{port}/moto-api/reset", data=b"").close()  # its state outlives it
    yield server
    server.stop()


@pytest.fixture
def bucket(server: ThreadedMotoServer, tmp_path: Path) -> Any:
    """S3 with photos and ``photos.txt``; the same lie in ``tmp_path``."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("photos")
    generator = np.random.default_rng(7)
    names = []
    for index in range(PHOTOS):
        names.append(f"holiday/{index}.png")
        path = tmp_path / names[-1]
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (4, 5, 3), np.uint8)).resize((90 + index, 60)).save(path)
        system.pipe_file(f"photos/{names[-1]}", path.read_bytes())
    (tmp_path / "photos.txt").write_text("\n".join(names))
    system.pipe_file("photos/photos.txt", "\n".join(names).encode())
    return system


@pytest.mark.parametrize("form", ["files", "parquet", "webdataset"])
def test_all_of_it_at_addresses(form: str, bucket: Any, colour_model: Path, tmp_path: Path) -> None:
    """Two shards from S3 to S3 give the table that one gives on this machine."""
    common = ["--results", form, "--save", "mask", "--model", colour_model]
    suffix = {"files": "jsonl", "parquet": "parquet", "webdataset": "tar"}[form]
    here = unet_run("--manifest", tmp_path / "photos.txt", "-o", tmp_path / "out", *common)
    assert here.return_value == 0
    unet_run("merge", tmp_path / "out", "-o", tmp_path / f"here.{suffix}")
    for number in (1, 2):
        shard = ["--shard", f"{number}/2", "-o", f"{BUCKET}/out"]
        result = unet_run("--manifest", f"{BUCKET}/photos.txt", *shard, *common)
        assert result.return_value == 0
        again = unet_run("--manifest", f"{BUCKET}/photos.txt", *shard, *common, "--resume")
        assert (again.return_value, again.stdout) == (0, "")
    assert unet_run("status", f"{BUCKET}/out").return_value == 0
    assert unet_run("merge", f"{BUCKET}/out", "-o", f"{BUCKET}/all.{suffix}").return_value == 0
    assert bucket.cat_file(f"photos/all.{suffix}") == (tmp_path / f"here.{suffix}").read_bytes()
    if form == "files":
        mask = tmp_path / "out" / "holiday" / "0.png.mask.png"
        assert bucket.cat_file("photos/out/holiday/0.png.mask.png") == mask.read_bytes()


def test_photos_at_addresses(bucket: Any, colour_model: Path, tmp_path: Path) -> None:
    """A photo that is missing there is a row with an error."""
    manifest = tmp_path / "addresses.csv"
    manifest.write_text(f"url\n{BUCKET}/holiday/0.png\n{BUCKET}/holiday/absent.png\nftq://host/x.png\n")
    result = unet_run("--manifest", manifest, "--results", "parquet", "--model", colour_model, "-o", tmp_path / "out")
    assert result.return_value == 1
    rows = pq.read_table(tmp_path / "out" / "shard-00001-of-00001").to_pylist()
    assert rows[0]["width"] == 90
    assert rows[1]["error"] == f"{BUCKET}/holiday/absent.png: no such file, expected a photo"
    assert "ftq://host/x.png: no address that can be used" in rows[2]["error"]


def test_a_lost_connection(
    bucket: Any, server: ThreadedMotoServer, colour_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its photos are rows with errors, and ``--resume`` does them when the connection is there again."""
    import s3fs

    manifest = tmp_path / "addresses.txt"
    manifest.write_text("".join(f"{BUCKET}/holiday/{index}.png\n" for index in range(2)))
    common = ["--manifest", manifest, "--results", "parquet", "--model", colour_model, "-o", tmp_path / "out"]
    _, port = server.get_host_and_port()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()
    assert unet_run(*common).return_value == 1
    rows = pq.read_table(tmp_path / "out" / "shard-00001-of-00001").to_pylist()
    assert all("cannot be read" in row["error"] for row in rows)
    server._port = port
    server.start()
    assert unet_run(*common, "--resume").return_value == 0


def test_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingDependencyError, match=r"s3://photos needs fsspec, which is not installed: pip install"):
        storage(BUCKET)
