"""What ``numpy.load`` opens: ``probabilities`` float16 (H, W, C), and ``classes``, their names."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from unet_runtime.core.segmentation import Result
from unet_runtime.io.kind import STAMP_KEY, Checkpoint, Kind, Metadata


def _write(result: Result, file: BinaryIO, metadata: Metadata, checkpoint: Checkpoint) -> None:
    import zipfile  # 10 ms that pictures do not need

    from numpy.lib import format as npy

    width, height = result.size
    names = np.array(result.spec.class_names)
    header = {"descr": "<f2", "fortran_order": False, "shape": (height, width, len(names))}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.comment = f"{STAMP_KEY}\0{metadata.stamp}".encode("ascii")
        with archive.open("classes.npy", "w") as entry:
            npy.write_array(entry, names, allow_pickle=False)
        with archive.open("probabilities.npy", "w", force_zip64=True) as entry:
            npy.write_array_header_1_0(entry, header)
            for _, band in result.probability_bands():
                checkpoint()
                entry.write(band.astype("<f2").tobytes())


PROBABILITIES = Kind(".probabilities.npz", _write)
