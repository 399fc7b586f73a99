"""Names that users really have: brackets, links in circles, too long, equal but for their case."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unet_runtime import SourceError
from unet_runtime.io.patterns import expand
from unet_runtime.io.sources import PhotoFile, find_photos

LONGEST_RESULT = ".probabilities.npz"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def names(*inputs: str, output_dir: str | None = None) -> list[str]:
    photos = find_photos(list(map(Path, inputs)), Path(output_dir) if output_dir else None)
    return [photo.path.as_posix() for photo in photos]


def problems(*inputs: str) -> list[str]:
    return [photo.problem for photo in find_photos(list(map(Path, inputs)), None, strict=False)]


def test_a_folder_whose_name_has_brackets() -> None:
    touch("My photos [2024]/a.jpg", "My photos [2024]/b/c.jpg", "My photos 2/d.jpg")
    assert names("My photos [2024]/*.jpg") == ["My photos [2024]/a.jpg"]
    assert names("My photos [2024]/**/*.jpg") == ["My photos [2024]/a.jpg", "My photos [2024]/b/c.jpg"]
    assert names("My photos [2024]") == ["My photos [2024]/a.jpg", "My photos [2024]/b/c.jpg"]
    assert names("My photos [1-3]/*.jpg") == ["My photos 2/d.jpg"]
    (photo,) = find_photos([Path("My photos [2024]/b/*.jpg")], Path("out"))
    assert photo.output_dir == Path("out")  # the tree below the pattern's fixed part


def test_a_file_whose_name_is_a_pattern_is_that_file() -> None:
    touch("[ab].jpg", "a.jpg", "what?.jpg", "d/*.jpg", "d/x.jpg")
    assert names("[ab].jpg") == ["[ab].jpg"]
    assert names("what?.jpg") == ["what?.jpg"]
    assert names("d/*.jpg") == ["d/*.jpg"]
    assert names("[a]*.jpg") == ["a.jpg"]


def test_a_pattern_follows_no_links_that_lead_back() -> None:
    """With two of them there are 2 to the 40th ways down."""
    touch("pets/a.jpg", "pets/deep/b.jpg", "pets/.hidden/c.jpg")
    for name in ("one", "two", "deep/up"):
        (Path("pets") / name).symlink_to(Path("..") if "/" in name else Path(), target_is_directory=True)
    assert names("pets/**/*.jpg") == ["pets/a.jpg", "pets/deep/b.jpg"]
    assert names("**/*.jpg") == ["pets/a.jpg", "pets/deep/b.jpg"]
    assert names("pets/**") == names("pets")
    assert names("pets/one/*.jpg") == ["pets/one/a.jpg"]  # a link that is named is followed


@pytest.mark.parametrize("pattern", ["*", "*.jpg", "d/*", "d/?.jpg", "[a-c].jpg", ".*", "d/[!x].jpg", "../*/a.jpg"])
def test_patterns_are_those_of_the_standard_library(pattern: str) -> None:
    import glob

    touch("a.jpg", "b.png", ".h.jpg", "d/x.jpg", "d/y.jpg", "d/.z.jpg", "d/e/f.jpg")
    assert list(map(str, expand(Path(pattern)))) == sorted(glob.glob(pattern))  # noqa: PTH207


def test_folders_that_are_named_by_the_way_to_them() -> None:
    touch("pets/deep/a.jpg")
    (photo,) = find_photos([Path("pets/deep/..")], None)
    assert photo.output_dir.parts[-2:] == ("pets-segmented", "deep")
    os.chdir("pets/deep")
    (photo,) = find_photos([Path("..")], None)
    assert photo.output_dir.parts[-2:] == ("pets-segmented", "deep")


def test_what_cannot_be_looked_at_is_a_problem_of_its_own() -> None:
    touch("a.jpg")
    Path("loop").symlink_to("loop")
    found = problems("x" * 300 + ".jpg", "/".join(["y" * 200] * 30), "loop/a.jpg", "a.jpg/b.jpg", "a.jpg")
    assert [text.partition(": ")[2] for text in found] == [
        "cannot be read (File name too long)",
        "cannot be read (File name too long)",
        "cannot be read (Too many levels of symbolic links)",
        "cannot be read (Not a directory)",
        "",
    ]


def test_a_folder_that_may_not_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "lstat", refuse)  # permissions do not stop the superuser, as whom tests often run
    assert problems("private/a.jpg") == ["private/a.jpg: cannot be read (Permission denied)"]


def test_pipes_and_devices_are_not_waited_for() -> None:
    os.mkfifo("pipe.jpg")
    os.mkfifo("film.mp4")
    for text in problems("pipe.jpg", "film.mp4", "/dev/zero", "/dev/null"):
        assert "is a pipe or a device, expected a file" in text


def written(photos: list[PhotoFile]) -> list[str]:
    return [str(photo.output_dir / photo.stem) for photo in photos]


def test_results_of_names_that_some_disks_take_for_one() -> None:
    touch("a.jpg", "A.jpg", "A.JPG", "\u00e9.png", "e\u0301.png", "b.jpg")
    photos = find_photos([Path()], Path("out"))
    assert len(photos) == 6
    folded = {name.casefold().replace("e\u0301", "\u00e9") for name in written(photos)}
    assert len(folded) == 6
    assert "out/b" in written(photos)
    assert written(find_photos([Path()], Path("out"))) == written(photos)


def test_results_of_folders_that_some_disks_take_for_one() -> None:
    touch("pets/a.jpg", "Pets/a.jpg")
    photos = find_photos([Path()], Path("out"))
    assert len({name.casefold() for name in written(photos)}) == 2
    touch("other/a.jpg")
    with pytest.raises(SourceError, match="would both write"):
        find_photos([Path("pets/a.jpg"), Path("other/a.jpg")], Path("out"))


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\U0001f408", "\udce9"])
def test_the_longest_names_leave_room_for_their_results(letter: str) -> None:
    stem = letter * (251 // len(os.fsencode(letter)))
    touch(f"{stem}.jpg", f"{stem}.png")
    photos = find_photos([Path()], None)
    assert len({photo.stem for photo in photos}) == 2
    for photo in photos:
        Path(f"{photo.stem}{LONGEST_RESULT}").touch()
        assert photo.stem.startswith(letter * 20)
