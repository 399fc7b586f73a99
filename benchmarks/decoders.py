"""Decoders for the architecture ``lite``, side by side: the same encoder, the same photos, the same budget.

    python benchmarks/decoders.py --data $PETS_DIR [--output artifacts/decoders] [--rows plain "stride 16"] [--table]

Every row starts from ImageNet's weights (the training package's extra ``[pretrained]``) and differs from ``plain``,
which is ``lite`` of ``unet_training/models/lite.py``, in one thing; ``slim`` is its ``lite-slim``. Validation photos
measure it: a choice is made of this table.
OUTPUT/decoders.json is written after every training, and a row that is in it is not trained again.

The milliseconds are of the untrained network at ``--time-size``, all rows in turn in one run, as ratios to ``plain``:
LiteRT in int8 and ONNX Runtime in float32, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from ablation import subset
from turns import take_turns

from unet_runtime.core.datasets import open_dataset
from unet_runtime.core.files import write_text

ROUNDS = 21


@dataclass(frozen=True)
class Decoder:
    """One row of the table."""

    depth: int = 5
    """How often the encoder halves the photo: 5 reaches stride 32, 4 stride 16."""
    filters: int = 24
    """Filters of the last stage; each below has twice as many, or half of these more."""
    doubling: bool = True
    enlarging: str = "bilinear"
    """``bilinear``, ``nearest`` or ``transposed``."""
    add_skips: bool = False
    """Add the skip connection, brought to the same filters by a 1x1 convolution, in place of concatenating it."""
    depthwise: bool = False
    """A depthwise 3x3 convolution and a 1x1 in place of the plain 3x3."""
    context: bool = False
    """Add to the deepest features their mean over the photo, through a 1x1 convolution."""
    full_resolution: bool = False
    """One more stage, whose skip connection is the photo itself, and the head at full resolution."""


DECODERS = {
    "plain": Decoder(),
    "stride 16": Decoder(depth=4),
    "stride 16, context": Decoder(depth=4, context=True),
    "context": Decoder(context=True),
    "16 filters": Decoder(filters=16),
    "slim": Decoder(filters=16, doubling=False),
    "nearest": Decoder(enlarging="nearest"),
    "transposed": Decoder(enlarging="transposed"),
    "added skips": Decoder(add_skips=True),
    "depthwise": Decoder(depthwise=True),
    "depthwise, 32 filters": Decoder(depthwise=True, filters=32),
    "head at full resolution": Decoder(full_resolution=True, filters=12),
}


def build(decoder: Decoder, side: int | None, classes: int = 3) -> Any:
    """The network, as ``unet_training.models`` builds ``lite``, for photos of ``side`` pixels or of any size."""
    from unet_training.models import efficientnet_lite
    from unet_training.models.blocks import architecture

    decorate = architecture(
        "lite",
        filters=decoder.filters,
        depth=decoder.depth,
        enlarge=1 if decoder.full_resolution else 2,
        scale=efficientnet_lite.SCALE,
        offset=efficientnet_lite.OFFSET,
    )
    return decorate(partial(_body, decoder))(side, side, classes)


def _body(decoder: Decoder, x: Any, filters: int, depth: int) -> Any:
    """Features for the head: (n, h / 2, w / 2, filters), or (n, h, w, filters) at full resolution."""
    from keras import layers

    from unet_training.models import efficientnet_lite

    skips = efficientnet_lite.encoder(x, efficientnet_lite.SCALINGS["lite"], depth)
    if decoder.full_resolution:
        skips.insert(0, x)
    x = skips.pop()  # (n, h / 2**depth, w / 2**depth, c)
    if decoder.context:
        mean = layers.GlobalAveragePooling2D(keepdims=True, name="context_mean")(x)  # (n, 1, 1, c)
        mean = layers.Conv2D(x.shape[-1], 1, name="context_conv")(mean)
        x = layers.Add(name="context_add")([x, mean])
    for stage in reversed(range(len(skips))):
        wider = filters * 2**stage if decoder.doubling else filters + filters * stage // 2
        x = _up(decoder, x, skips[stage], wider, f"decoder{stage + 1}")
    return x


def _up(decoder: Decoder, x: Any, skip: Any, filters: int, name: str) -> Any:
    """A stage: (n, h, w, c) and its skip connection (n, 2h, 2w, c') -> (n, 2h, 2w, filters)."""
    from keras import layers

    from unet_training.models.blocks import concatenate, norm_relu

    if decoder.enlarging == "transposed":
        x = layers.Conv2DTranspose(filters, 2, strides=2, use_bias=False, name=f"{name}_up")(x)
        x = norm_relu(x, name, "_up")
    else:
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_reduce")(x)
        x = norm_relu(x, name, "_reduce")
        x = layers.UpSampling2D(2, interpolation=decoder.enlarging, name=f"{name}_up")(x)
    if decoder.add_skips:
        skip = layers.Conv2D(filters, 1, name=f"{name}_bring")(skip)
        x = layers.Add(name=f"{name}_skip")([x, skip])
    else:
        x = concatenate(x, skip, name)
    if decoder.depthwise:
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
        x = norm_relu(x, name, "_depthwise")
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv")(x)
    else:
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return norm_relu(x, name)


def train(options: argparse.Namespace, data: Path, decoder: Decoder) -> dict[str, Any]:
    """Train one row with the trainer's own parts; its best epoch on the validation photos."""
    import keras

    from unet_training import build as parts
    from unet_training.data.augment import Augmenter
    from unet_training.data.cache import PhotoCache
    from unet_training.data.dataset import Batches, TrainingBatches, load, split_dataset
    from unet_training.encoder_weights import assign_encoder_weights, read_encoder_weights
    from unet_training.losses import TrainingModel
    from unet_training.recipes import PRESETS

    keras.utils.clear_session()
    keras.utils.set_random_seed(options.seed)
    recipe = replace(
        PRESETS["edge"],
        architecture="lite",
        encoder_weights="imagenet",
        encoder_rate=0.3,
        size=options.size,
        epochs=options.epochs,
        learning_rate=1e-3,
        region_loss="dice",
    )
    spec = parts.input_spec(recipe, options.size)
    split = split_dataset(open_dataset(data), "official", recipe.validation, options.seed)
    cache = PhotoCache(options.output / "cache")
    photos = load(split.train, spec, cache)
    validation = load(split.validation, spec, cache)
    network = build(decoder, None)
    assign_encoder_weights(network, read_encoder_weights("imagenet", "lite"))
    model = TrainingModel(network.input, network.output)
    model.objective = parts.make_objective(recipe, None)
    batches = TrainingBatches(photos, recipe.batch_size, options.seed, Augmenter(options.seed))
    parts.compile_model(model, parts.make_optimizer(recipe, len(batches)))
    begun = time.perf_counter()
    history = model.fit(
        batches,
        validation_data=Batches(validation, recipe.batch_size),
        epochs=recipe.epochs,
        shuffle=False,
        verbose=2,
    ).history
    best = int(np.argmax(history["val_mean_iou"]))
    return {
        "validation_mean_iou": history["val_mean_iou"][best],
        "validation_loss": history["val_loss"][best],
        "parameters": network.count_params(),
        "minutes": (time.perf_counter() - begun) / 60,
    }


def time_all(names: list[str], size: int) -> dict[str, tuple[float, float]]:
    """Ratio of each row's time to that of ``plain``: LiteRT int8, ONNX Runtime float32."""
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Callable[[], object]] = {}
        for name in dict.fromkeys(["plain", *names]):
            int8, float32 = _convert(build(DECODERS[name], size), size, Path(folder, str(len(calls))))
            calls[f"{name} int8"] = int8
            calls[f"{name} float32"] = float32
        medians: dict[str, float] = {}
        for name, seconds in take_turns(calls, ROUNDS).items():
            medians[name] = statistics.median(seconds)
    ratios: dict[str, tuple[float, float]] = {}
    for name in names:
        ratios[name] = (
            medians[f"{name} int8"] / medians["plain int8"],
            medians[f"{name} float32"] / medians["plain float32"],
        )
    return ratios


def _convert(model: Any, size: int, folder: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """One call of the network in int8 by LiteRT, and in float32 by ONNX Runtime, each on one thread."""
    import onnxruntime
    import tensorflow as tf
    import tf2onnx
    from ai_edge_litert.interpreter import Interpreter

    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (1, size, size, 3), np.uint8)
    model.export(str(folder), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: iter([[picture]])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    interpreter = Interpreter(model_content=converter.convert(), num_threads=1)
    interpreter.allocate_tensors()
    number = interpreter.get_input_details()[0]["index"]

    def run_int8() -> None:
        interpreter.set_tensor(number, picture)
        interpreter.invoke()

    signature = [tf.TensorSpec((1, size, size, 3), tf.uint8, name="image")]
    graph = tf.function(lambda image: model(image, training=False), input_signature=signature)
    content = tf2onnx.convert.from_function(graph, signature, opset=17)[0].SerializeToString()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    return run_int8, lambda: session.run(None, {"image": picture})


def table(rows: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| decoder | mean IoU, validation | loss | parameters | LiteRT int8 | ONNX Runtime float32 |",
        "|---|---|---|---|---|---|",
    ]
    for name in DECODERS:
        if name not in rows:
            continue
        row = rows[name]
        int8, float32 = row.get("ratios", ("-", "-"))
        lines.append(
            f"| {name} | {row['validation_mean_iou']:.4f} | {row['validation_loss']:.4f} | {row['parameters']:,} "
            f"| {int8} | {float32} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("PETS_DIR"), help="default: PETS_DIR")
    parser.add_argument("--output", type=Path, default=Path("artifacts/decoders"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--photos", type=int, default=1600, help="of trainval, 200 of them for validation; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", nargs="+", choices=list(DECODERS), default=list(DECODERS))
    parser.add_argument("--time-size", type=int, default=160)
    parser.add_argument("--time", action="store_true", help="time the rows, and train nothing")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and train nothing")
    options = parser.parse_args()
    path = options.output / "decoders.json"
    settings = {name: getattr(options, name) for name in ("size", "epochs", "photos", "seed")}
    found: dict[str, Any] = {"settings": settings, "rows": {}}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] != settings:
            sys.exit(f"{path} is of {found['settings']}, this call of {settings}: name another --output")
    if not (options.table or options.time):
        if options.data is None:
            parser.error("--data or PETS_DIR: Oxford-IIIT Pet's folder")
        options.output.mkdir(parents=True, exist_ok=True)
        data = subset(options.data, options.photos, options.output / "photos")
        for name in options.rows:
            if name not in found["rows"]:
                print(name, flush=True)
                found["rows"][name] = {"decoder": asdict(DECODERS[name])} | train(options, data, DECODERS[name])
                write_text(path, json.dumps(found, indent=1))
    if options.time:
        for name, ratios in time_all(
            [name for name in options.rows if name in found["rows"]], options.time_size
        ).items():
            found["rows"][name]["ratios"] = [f"{ratio:.2f}" for ratio in ratios]
        write_text(path, json.dumps(found, indent=1))
    print(table(found["rows"]))


if __name__ == "__main__":
    main()
