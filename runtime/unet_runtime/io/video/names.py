"""Names of files as OpenCV and FFmpeg take them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path


class NativeName:
    """A file, named so that OpenCV opens this file and no other.

    OpenCV crashes on a name that is not UTF-8, so such a folder or file gets a link of another name. FFmpeg takes what
    is before a colon for a protocol, and does not where the name begins at the root.
    """

    def __init__(self, path: Path) -> None:
        self._folder = ""
        self.text = str(path.absolute())
        if not _is_utf_8(self.text):
            self._folder = tempfile.mkdtemp(prefix="unet-edge-")
            place = Path(self._folder, "folder")
            place.symlink_to(path.parent.absolute(), target_is_directory=True)
            self.text = str(place / path.name)
            if not _is_utf_8(path.name):
                link = Path(self._folder, "file" + path.suffix if _is_utf_8(path.suffix) else "file")
                link.symlink_to(path.absolute())
                self.text = str(link)

    def close(self) -> None:
        """Remove the link."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""


def _is_utf_8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
