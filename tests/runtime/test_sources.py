"""What is named -> which photos, and where their results go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unet_runtime import SourceError
from unet_runtime.io.sources import STDIN, PhotoFile, find, find_photos


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pets/a.jpg, pets/deep/b.PNG, pets/notes.txt and litter; the working directory is above."""
    deep = tmp_path / "pets" / "deep"
    deep.mkdir(parents=True)
    for name in ("a.jpg", "notes.txt", "._a.jpg", "a.mask.png", "deep/b.PNG"):
        (tmp_path / "pets" / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return Path("pets")


def places(photos: list[PhotoFile]) -> list[tuple[str, str]]:
    """(photo, first part of its results)."""
    return [(photo.path.as_posix(), (photo.output_dir / photo.stem).as_posix()) for photo in photos]


def found(*inputs: str, output_dir: str | None = None) -> list[tuple[str, str]]:
    photos = find_photos([Path(item) for item in inputs], Path(output_dir) if output_dir else None)
    assert not any(photo.problem for photo in photos)
    return places(photos)


def test_a_folder_is_searched_and_mirrored(tree: Path) -> None:
    assert found("pets") == [("pets/a.jpg", "pets-segmented/a"), ("pets/deep/b.PNG", "pets-segmented/deep/b")]
    assert found("pets", output_dir="o") == [("pets/a.jpg", "o/a"), ("pets/deep/b.PNG", "o/deep/b")]


def test_a_named_file_may_have_any_name(tree: Path) -> None:
    assert found("pets/notes.txt", "pets/a.mask.png") == [
        ("pets/notes.txt", "pets/notes"),
        ("pets/a.mask.png", "pets/a.mask"),
    ]


def test_patterns_are_expanded_and_mirrored(tree: Path) -> None:
    assert found("pets/*.jpg") == [("pets/a.jpg", "pets/a")]
    assert found("pets/**/*.[jP]*") == [("pets/a.jpg", "pets/a"), ("pets/deep/b.PNG", "pets/deep/b")]
    assert found("pets/**/*.[jP]*", output_dir="o") == [("pets/a.jpg", "o/a"), ("pets/deep/b.PNG", "o/deep/b")]
    assert found("*s", output_dir="o") == [("pets/a.jpg", "o/pets/a"), ("pets/deep/b.PNG", "o/pets/deep/b")]
    absolute = find_photos([tree.resolve() / "d?ep" / "*"], Path("o"))
    assert [photo.output_dir for photo in absolute] == [Path("o/deep")]


def test_a_file_named_like_a_pattern_is_that_file(tree: Path) -> None:
    (tree / "[x].jpg").write_bytes(b"")
    assert found("pets/[x].jpg") == [("pets/[x].jpg", "pets/[x]")]


def test_repeats_are_one(tree: Path) -> None:
    assert len(found("pets/a.jpg", "pets", "pets/*.jpg", "./pets/../pets/a.jpg")) == 2


def test_standard_input_has_a_name(tree: Path) -> None:
    assert places(find_photos([STDIN], None)) == [("-", "stdin")]
    assert places(find_photos([STDIN], Path("o"))) == [("-", "o/stdin")]


def test_videos_are_known_when_named(tree: Path) -> None:
    (tree / "film.MP4").write_bytes(b"")
    assert [photo.is_video for photo in find_photos([tree / "film.MP4", tree / "a.jpg"], None)] == [True, False]
    assert not any(photo.is_video for photo in find_photos([tree], None))


def test_what_gives_nothing_is_said_and_stops_nobody(tree: Path) -> None:
    (tree / "empty").mkdir()
    photos = find_photos([Path("absent.jpg"), tree / "empty", Path("*.tif"), tree / "a.jpg"], None, strict=False)
    assert [photo.problem.split(" (")[0] for photo in photos] == [
        "absent.jpg: no such file or folder",
        "pets/empty: no photo in this folder",
        "*.tif: no file matches this pattern",
        "",
    ]


def test_strictly_it_is_an_error(tree: Path) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(SourceError, match=r"absent: no such file or folder; pets/empty: no photo in this folder"):
        find_photos([Path("absent"), tree / "empty", tree], None)


def test_links_pipes_and_folders_with_photos_names(tree: Path) -> None:
    """A broken link fails when it is opened; nothing waits for ever, nothing is walked twice."""
    (tree / "x.jpg").mkdir()
    (tree / "broken.jpg").symlink_to("gone.jpg")
    (tree / "loop.jpg").symlink_to("loop.jpg")
    (tree / "again").symlink_to(".", target_is_directory=True)
    os.mkfifo(tree / "pipe.jpg")
    assert [photo.path.name for photo in find_photos([tree], None)] == ["a.jpg", "broken.jpg", "loop.jpg", "b.PNG"]


def test_a_folder_that_cannot_be_read_is_a_problem(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir  # permissions do not stop the superuser, as whom tests often run

    def scandir(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)
    photos = find_photos([tree], None, strict=False)
    assert [photo.problem for photo in photos] == ["", "pets/deep: folder cannot be read (Permission denied)"]
    with pytest.raises(SourceError, match=r"pets/deep: folder cannot be read"):
        find_photos([tree], None)


def test_same_stems_take_their_whole_names(tree: Path) -> None:
    for name in ("a.png", "a.jpg.jpg"):  # the third one's stem is the first one's whole name
        (tree / name).write_bytes(b"")
    stems = [photo.stem for photo in find_photos([tree / "a.jpg", tree / "a.png", tree / "a.jpg.jpg"], None)]
    assert stems == ["a.jpg", "a.png", "a.jpg.jpg"]


def test_photos_of_two_folders_never_share_results(tree: Path) -> None:
    (tree / "deep" / "a.jpg").write_bytes(b"")
    with pytest.raises(SourceError, match=r"pets/a\.jpg and pets/deep/a\.jpg would both write o/a\.jpg\.\*"):
        find_photos([tree / "a.jpg", tree / "deep" / "a.jpg"], Path("o"))


def test_clips_in_a_folder_are_left_out_and_said(tmp_path: Path) -> None:
    for name in ("a.jpg", "clip.mp4", "code.ts"):
        (tmp_path / name).write_bytes(b"x")
    found = find([tmp_path], None)
    assert [photo.path.name for photo in found.photos] == ["a.jpg"]
    assert [(kind.kind, [path.name for path in kind.paths]) for kind in found.left_out] == [("video", ["clip.mp4"])]


def test_a_cameras_address_among_photos_keeps_its_password() -> None:
    (photo,) = find_photos([Path("rtsp://admin:p@ss@10.0.0.7/stream")], None, strict=False)
    assert "p@ss" not in photo.problem
    assert "--webcam" in photo.problem
