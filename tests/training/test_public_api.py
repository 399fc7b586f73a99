"""``from unet_training import train``: names are there at once, Keras comes when it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import unet_training
from unet_training.data.pairs import Labelled


def test_names_are_known_without_keras() -> None:
    script = (
        "import sys, unet_training, unet_training.cli.command;"
        "assert set(unet_training.__all__) <= set(dir(unet_training));"
        "print('keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_public_name_is_there() -> None:
    for name in unet_training.__all__:
        assert getattr(unet_training, name)
    assert unet_training.train.__module__ == "unet_training.pipeline"  # the function, not a module
    with pytest.raises(AttributeError, match="no attribute 'fit_all'"):
        _ = unet_training.fit_all


def test_the_package_is_typed() -> None:
    assert Path(unet_training.__file__).with_name("py.typed").is_file()


def test_decoded_photos_have_a_short_repr() -> None:
    photos = np.zeros((2, 4, 6, 3), np.uint8)
    assert repr(Labelled(["a", "b"], photos, photos[..., 0], ["c"])) == "Labelled(2 photos of 6x4, 1 left out)"
