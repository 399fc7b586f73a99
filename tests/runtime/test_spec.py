"""The contract: what goes in comes out, and what it does not allow is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.conftest import colour_spec
from unet_runtime import ModelFileError, ModelSpec
from unet_runtime.core.spec import InputSpec, OutputSpec, Provenance


def test_json_round_trip() -> None:
    spec = replace(colour_spec(), provenance=Provenance(data="drawn", seed=7, metrics={"iou": {"red": 0.5}}))
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert ModelSpec.from_json(spec.to_json()).to_json() == spec.to_json()


def test_a_file_of_schema_1_is_read() -> None:
    """What later schemas added has defaults; what is written is of schema 3."""
    data = json.loads(colour_spec().to_json())
    assert data["schema"] == 3
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
        ("schema", 4, "schema 4, this version reads 1, 2 and 3"),
        ("schema", "one", "schema 'one'"),
        ("input.height", 0, "input.height is 0"),
        ("input.width", "160", "input.width is '160'"),
        ("input.fit", "crop", "input.fit is 'crop'"),
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
        ("input", 160, "input is int"),
    ],
)
def test_refused(path: str, value: object, named: str) -> None:
    with pytest.raises(ModelFileError, match=named):
        ModelSpec.from_json(changed(path, value))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", b"\xff\xfe"])
def test_not_a_spec(text: str | bytes) -> None:
    with pytest.raises(ModelFileError):
        ModelSpec.from_json(text)


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        colour_spec().name = "other"  # type: ignore[misc]
