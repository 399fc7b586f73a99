"""A Keras model's layers, gathered into the stages that their names tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras

Shape = tuple[int | None, ...]

Edges = list[tuple[int, int]]


class Stage(NamedTuple):
    """Layers that work together: connected, named alike up to the first underscore, answering in one size."""

    name: str
    layers: list[str]
    """Each in a few words, in the model's order."""
    shape: Shape
    """Of its last layer's answer, with the batch: (None, h, w, channels)."""
    parameters: int
    """Of all its layers, trained or not."""


def stages(model: keras.Model) -> tuple[list[Stage], Edges]:
    """The stages of a functional or sequential model in its order, and which feed which, by index.

    A layer without parameters that is alone, such as a pooling, belongs to the one stage that it feeds, where that
    answers in the same size.
    """
    entries = {entry["config"]["name"]: entry for entry in _entries(model)}
    inputs = {name: dict(_tensors(entry["inbound_nodes"])) for name, entry in entries.items()}
    shapes = dict.fromkeys(entries, tuple(model.output_shape))  # of whom nobody reads: the model's last layer
    for found in inputs.values():
        shapes |= found
    counts = {layer.name: layer.count_params() for layer in model.layers}
    heads = _gather(inputs, shapes)
    _join_alone(heads, inputs, shapes, {name for name in entries if not counts.get(name) and inputs[name]})
    members = {head: [name for name in entries if heads[name] == head] for head in dict.fromkeys(heads.values())}
    result = [
        Stage(
            name=names[0].replace("_", " ") if len(names) == 1 else _prefix(head),
            layers=[describe(entries[name]) for name in names],
            shape=shapes[names[-1]],
            parameters=sum(counts.get(name, 0) for name in names),
        )
        for head, names in members.items()
    ]
    places = {head: index for index, head in enumerate(members)}
    return result, [(places[start], places[end]) for start, end in _edges(heads, inputs)]


def describe(entry: Mapping[str, Any]) -> str:
    """A layer, as Keras' configuration holds it, in a few words: ``Conv2D 3x3, 16``."""
    config, words = entry["config"], [str(entry["class_name"])]
    if words == ["Activation"]:
        return str(config["activation"])
    for key in ("kernel_size", "pool_size", "size"):
        if isinstance(config.get(key), (list, tuple)):
            words.append("x".join(str(side) for side in config[key]))
    details = [str(config["filters"])] if "filters" in config else []
    pooling = "pool_size" in config  # whose strides are its size
    for key, word in (("strides", "strides"), ("dilation_rate", "dilation")):
        value = config.get(key)
        if isinstance(value, (list, tuple)) and not pooling and set(value) != {1}:
            details.append(f"{word} {'x'.join(str(side) for side in value)}")
    activation = config.get("activation")
    if isinstance(activation, str) and activation != "linear":
        details.append(activation)
    return ", ".join([" ".join(words), *details])


def _entries(model: keras.Model) -> list[dict[str, Any]]:
    """The model's layers as its own configuration lists them. In a sequential one each feeds the next."""
    entries: list[dict[str, Any]] = model.get_config()["layers"]
    if all("inbound_nodes" in entry for entry in entries):
        return entries
    outputs = {layer.name: tuple(layer.output.shape) for layer in model.layers}
    names = [entry["config"]["name"] for entry in entries]
    fed = [{"keras_history": [name, 0, 0], "shape": outputs.get(name, model.input_shape)} for name in names]
    return [{**entry, "inbound_nodes": fed[index - 1 : index]} for index, entry in enumerate(entries)]


def _tensors(value: Any) -> Iterator[tuple[str, Shape]]:
    """Layer and shape of every tensor within the arguments of a layer's calls."""
    if isinstance(value, Mapping):
        if "keras_history" in value:
            yield str(value["keras_history"][0]), tuple(value["shape"])
            return
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _tensors(entry)


def _gather(inputs: Mapping[str, Mapping[str, Shape]], shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Each layer's stage, named by a layer of it."""
    heads: dict[str, str] = {}
    for name, sources in inputs.items():
        alike = [
            heads[source]
            for source in sources
            if source in heads  # a layer that is called again hears one that comes after it
            and _prefix(source) == _prefix(name)
            and shapes[source][1:-1] == shapes[name][1:-1]
        ]
        heads[name] = alike[0] if alike else name
        for other in alike[1:]:  # a layer that joins branches joins their stages
            heads.update({key: heads[name] for key, head in heads.items() if head == other})
    return heads


def _join_alone(
    heads: dict[str, str], inputs: Mapping[str, Mapping[str, Shape]], shapes: Mapping[str, Shape], light: set[str]
) -> None:
    """Move each of the layers ``light`` that is a stage by itself into the only one it feeds."""
    for name in reversed(list(inputs)):  # a chain of them moves whole
        if name in light and list(heads.values()).count(heads[name]) == 1:
            fed = {end for start, end in _edges(heads, inputs) if start == heads[name]}
            if len(fed) == 1 and shapes[next(iter(fed))][1:-1] == shapes[name][1:-1]:
                heads[name] = fed.pop()


def _edges(heads: Mapping[str, str], inputs: Mapping[str, Mapping[str, Shape]]) -> list[tuple[str, str]]:
    """Which stage feeds which, by their heads, each once."""
    between = (
        (heads[source], heads[name])
        for name, sources in inputs.items()
        for source in sources
        if heads[source] != heads[name]
    )
    return list(dict.fromkeys(between))


def _prefix(name: str) -> str:
    return name.partition("_")[0]
