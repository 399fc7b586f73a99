"""TensorFlow's converter against ai-edge-quantizer: the same trained model as int8, measured side by side.

    python benchmarks/tflite_quantizers.py --data $PETS_DIR [--photos 500] [--calibration 200] [--chosen]

A row is one file, and each test photo goes through all of them in turn, so that a busy machine is busy for each.
Drops are percentage points of IoU at the model's size against the float32 file; agreement is the share of pixels of the
same class. ``--chosen`` compares only the float32 and the int8 file that ``unet-export`` writes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bundled
import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from unet_export.foreign.load import load_model
from unet_export.formats.saved_model import SIGNATURE_NAME, write_graph
from unet_export.formats.tflite_convert import export_tflite
from unet_export.photos import calibration_images
from unet_export.quantization import Quantization
from unet_export.source_model import INPUT_NAME, copy_with_input
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import Sample, evenly, open_dataset, open_labels, read_split
from unet_runtime.core.geometry import model_input, model_labels
from unet_runtime.core.metrics import confusion, iou
from unet_runtime.core.photo import open_photo

BORDER = 2

Images = npt.NDArray[np.uint8]


def by_tensorflow(folder: Path, images: Images) -> bytes:
    """TensorFlow's full-integer conversion: ranges are the extremes of all photos, probabilities uint8."""
    import tensorflow as tf

    def representative() -> Iterator[list[npt.NDArray[np.float32]]]:
        for image in images:
            yield [image[np.newaxis].astype(np.float32)]

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return bytes(converter.convert())


def by_ai_edge_quantizer(folder: Path, images: Images) -> bytes:
    """The quantiser's own recipe for int8: ranges are moving averages of each photo's extremes, probabilities int8."""
    import tensorflow as tf
    from ai_edge_quantizer import quantizer, recipe

    content = tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert()
    worker = quantizer.Quantizer(content, recipe.static_wi8_ai8())
    photos = [{INPUT_NAME: image[np.newaxis].astype(np.float32)} for image in images]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ranges = worker.calibrate({SIGNATURE_NAME: photos})
        return bytes(worker.quantize(ranges, enable_progress_report=False).quantized_model)


def contenders(model: Any, spec: Any, images: Images, work: Path, chosen: bool) -> dict[str, bytes]:
    """Name of each row -> its file."""

    def package(precision: str, method: str = "minmax") -> bytes:
        quantization = Quantization(method=method, photos=len(images))
        return export_tflite(model, precision, spec, images, quantization, work)

    files = {"float32": package("float32"), "int8, as exported": package("int8")}
    if chosen:
        return files
    folder = work / "float_input"
    write_graph(copy_with_input(model, model.inputs[0].shape[1:], "float32"), folder, batch=1, dtype="float32")
    rows: dict[str, Callable[[], bytes]] = {
        "int8, TensorFlow": lambda: by_tensorflow(folder, images),
        "int8, ai-edge-quantizer as it comes": lambda: by_ai_edge_quantizer(folder, images),
        "int8, as exported, percentile": lambda: package("int8", "percentile"),
        "dynamic-range, as exported": lambda: package("dynamic-range"),
    }
    return files | {name: build() for name, build in rows.items()}


class Row:
    """One file, its engine, and what was measured of it."""

    def __init__(self, name: str, content: bytes, classes: int) -> None:
        self.name, self.size = name, len(content)
        self._interpreter: Any = Interpreter(model_content=content, num_threads=os.cpu_count())
        self._interpreter.allocate_tensors()
        self._source = self._interpreter.get_input_details()[0]
        self._result = self._interpreter.get_output_details()[0]
        self.seconds: list[float] = []
        self.confusion = np.zeros((classes, classes), np.int64)
        self.agreeing = self.pixels = 0

    def mask(self, image: Images) -> Images:
        """(1, h, w, 3) -> class ids (1, h', w')."""
        scale, zero_point = self._source["quantization"]
        fed = image if self._source["dtype"] is np.uint8 else np.rint(image / scale + zero_point)
        limits = np.iinfo(self._source["dtype"])
        started = time.perf_counter()
        fed = fed.clip(limits.min, limits.max).astype(self._source["dtype"])
        self._interpreter.set_tensor(self._source["index"], fed)
        self._interpreter.invoke()
        prediction = self._interpreter.get_tensor(self._result["index"])
        self.seconds.append(time.perf_counter() - started)
        ids: Images = prediction.argmax(axis=-1).astype(np.uint8)
        return ids

    def line(self, reference: Row) -> str:
        own, theirs = iou(self.confusion), iou(reference.confusion)
        metrics = (
            f"{self.size / 1e6:.2f}",
            f"{statistics.median(self.seconds) * 1e3:.1f}",
            f"{own.mean() * 100:.3f}",
            f"{(theirs.mean() - own.mean()) * 100:+.3f}",
            f"{own[BORDER] * 100:.3f}",
            f"{(theirs[BORDER] - own[BORDER]) * 100:+.3f}",
            f"{self.agreeing / self.pixels:.3%}",
        )
        return f"| {self.name} | {' | '.join(metrics)} |"


def measure(rows: list[Row], photos: list[Sample], spec: Any) -> None:
    for entry in photos:
        image = model_input(open_photo(entry.photo), spec.input)
        labels = model_labels(open_labels(entry), spec.input)[np.newaxis]
        masks = [row.mask(image) for row in rows]
        for row, mask in zip(rows, masks, strict=True):
            row.confusion += confusion(labels, mask, len(spec.classes))
            row.agreeing += int((mask == masks[0]).sum())
            row.pixels += mask.size


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Oxford-IIIT Pet")
    parser.add_argument("--model", type=Path, default=bundled.KERAS)
    parser.add_argument("--photos", type=int, default=500, help="test photos, spread over all")
    parser.add_argument("--calibration", type=int, default=200, help="trainval photos")
    parser.add_argument("--chosen", action="store_true", help="only float32 and the exported int8")
    options = parser.parse_args()
    artifact = read_artifact(options.model)
    spec, split = artifact.spec, artifact.spec.provenance.split
    calibration = evenly(read_split(open_dataset(options.data), split, "trainval"), options.calibration)
    images = calibration_images(np.concatenate([model_input(open_photo(e.photo), spec.input) for e in calibration]))
    with tempfile.TemporaryDirectory() as work:
        files = contenders(load_model(options.model)[0], spec, images, Path(work), options.chosen)
    rows = [Row(name, content, len(spec.classes)) for name, content in files.items()]
    photos = evenly(read_split(open_dataset(options.data), split, "test"), options.photos)
    measure(rows, photos, spec)
    print(f"{len(photos)} test photos of {options.model.name}, calibrated on {len(images)}\n")
    print("| file | MB | median ms | mean IoU | drop | border IoU | drop | agreement |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(row.line(rows[0]))


if __name__ == "__main__":
    main()
