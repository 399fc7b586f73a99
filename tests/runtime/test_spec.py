"""The contract: what goes in comes out, and what it does not allow is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.helpers.colours import colour_spec
from unet_runtime import ModelFileError, ModelSpec
from unet_runtime.core.spec import InputSpec, OutputSpec, Provenance


def test_json_round_trip() -> None:
    spec = replace(colour_spec(), provenance=Provenance(data="drawn", seed=7, metrics={"iou": {"red": 0.5}}))
    spec = replace(spec, disabled_optimizers=("Pad_Fusion",))
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert ModelSpec.from_json(spec.to_json()).to_json() == spec.to_json()


def test_a_file_of_schema_1_is_read() -> None:
    """What later schemas added has defaults; what is written is of schema 6."""
    data = json.loads(colour_spec().to_json())
    assert data["schema"] == 6
    data["schema"] = 1
    del data["provenance"]["quantization"]
    assert ModelSpec.from_json(json.dumps(data)) == colour_spec()


@pytest.mark.parametrize("schema", [1, 2])
def test_the_margin_of_an_earlier_schema_is_found_in_its_output(schema: int) -> None:
    spec = replace(colour_spec(), input=InputSpec(32, 32, margin=4), output=OutputSpec(24, 24))
    data = json.loads(spec.to_json())
    data["schema"] = schema
    data["output"]["margin"] = data["input"].pop("margin")
    assert ModelSpec.from_json(json.dumps(data)) == spec
    del data["output"]["margin"]
    data["output"] |= {"height": 32, "width": 32}
    assert ModelSpec.from_json(json.dumps(data)).input.margin == 0


def changed(path: str, value: object) -> str:
    """The colour spec's JSON with one value changed; ``path`` like ``input.height`` or ``classes.0.role``."""
    data = json.loads(colour_spec().to_json())
    *parents, last = path.split(".")
    target = data
    for part in parents:
        target = target[int(part)] if isinstance(target, list) else target[part]
    target[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("schema", 7, "schema 7, this version reads 1, 2, 3, 4, 5 and 6"),
        ("schema", "one", "schema 'one'"),
        ("input.height", 0, "input.height is 0"),
        ("input.width", "160", "input.width is '160'"),
        ("input.fit", "squeeze", "input.fit is 'squeeze'"),
        ("input.margin", -1, "input.margin is -1"),
        ("input.margin", 16, "input.margin is 16, expected 0 or more pixels, and less than half of 32"),
        ("output.margin", 0, "output has unknown fields"),
        ("output.activation", "relu", "output.activation"),
        ("precision", "int4", "precision is 'int4'"),
        ("classes", [], "classes is 0"),
        ("classes", {"pet": 0}, "classes is dict"),
        ("classes.0.role", "hero", r"classes\[0\].role"),
        ("classes.0.color", [0, 0, 256], r"classes\[0\].color"),
        ("classes.0.color", "red", r"classes\[0\].color"),
        ("surprise", 1, "unknown fields"),
        ("disabled_optimizers", "Pad_Fusion", "disabled_optimizers is 'Pad_Fusion', expected a list of names"),
        ("disabled_optimizers", ["Pad_Fusion;all"], "disabled_optimizers"),
        ("disabled_optimizers", [1], "disabled_optimizers"),
        ("input.height", True, "input.height is True"),
        ("input.height", 160.0, r"input.height is 160\.0"),
        ("input.height", 20_000, "at most 16384 pixels"),
        ("input.margin", False, "input.margin is False"),
        ("input.margin", 4, "output, height x width, is .32, 32., expected 24 x 24"),
        ("output.height", 16, "output, height x width, is .16, 32."),
        ("output.height", 10**400, "output.height is 1000"),
        ("output.activation", ["softmax"], "output.activation"),
        ("name", "", "name is ''"),
        ("name", 7, "name is 7"),
        ("name", "a\x1b[31m", r"name is 'a\\x1b\[31m'"),
        ("name", "a\u202eb", "name is"),
        ("name", "\udce9", "name is"),
        ("license", "x" * 100_000, "at most 1000 characters"),
        ("classes.1.name", "red", r"classes\[1\].name is 'red', expected a name that no other class has"),
        ("classes.1.name", " red", "expected a name that no other class has"),
        ("classes.1.name", "re\u200bd", "expected a name that no other class has"),
        ("classes.1.name", " ", r"classes\[1\].name"),
        ("classes.1.name", ["red"], r"classes\[1\].name"),
        ("classes.1.name", "two\nlines", r"classes\[1\].name"),
        ("classes.0.color", [True, 0, 0], r"classes\[0\].color"),
        ("classes.0.role", {"a": 1}, r"classes\[0\].role"),
        ("provenance.seed", "1", "provenance.seed"),
        ("provenance.seed", True, "provenance.seed is True"),
        ("provenance.split", None, "provenance.split"),
        ("provenance.weights_sha256", "g" * 64, "provenance.weights_sha256"),
        ("provenance.tools", [], r"provenance.tools is \[\], expected an object"),
        ("provenance.tools", {"numpy": 2}, "provenance.tools.numpy is 2"),
        ("provenance.metrics", {"mean_iou": "0.7"}, "provenance.metrics.mean_iou"),
        ("provenance.metrics", {"iou": [0.7]}, "provenance.metrics.iou"),
        ("provenance.metrics", {"iou": {"red": None}}, "provenance.metrics.iou"),
        ("provenance.recipe", {"a": [{"b": {"c": [[[[[["deep"]]]]]]}}]}, "at most 8 levels"),
        ("provenance.recipe", {"a\x00": 1}, "provenance.recipe, a key"),
        ("provenance.quantization", {"note": "\x9b2J"}, "provenance.quantization.note"),
        ("input", 160, "input is int"),
    ],
)
def test_refused(path: str, value: object, named: str) -> None:
    with pytest.raises(ModelFileError, match=named):
        ModelSpec.from_json(changed(path, value))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "{}", b"\xff\xfe", '["' * 200_000, "[" * 200_000, '{"a":' * 100_000, "1" * 10_000),
        *(" " * 2_000_000, colour_spec().to_json().replace('"name":"colours"', '"name":"a","name":"b"')),
        *(colour_spec().to_json().replace('"seed":null', f'"seed":{word}') for word in ("NaN", "Infinity", "1e999")),
    ],
)
def test_not_a_spec(text: str | bytes) -> None:
    with pytest.raises(ModelFileError) as caught:
        ModelSpec.from_json(text)
    assert len(str(caught.value)) < 600


def test_a_coarser_output_covers_the_same_photo() -> None:
    data = json.loads(colour_spec().to_json())
    data["output"] |= {"height": 8, "width": 8}
    assert ModelSpec.from_json(json.dumps(data)).output.height == 8
    data["input"]["fit"] = "letterbox"
    assert ModelSpec.from_json(json.dumps(data)).output.height == 8
    data["input"]["margin"] = 4
    with pytest.raises(ModelFileError, match="output, height x width, is"):
        ModelSpec.from_json(json.dumps(data))


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        colour_spec().name = "other"  # type: ignore[misc]
