"""The trained model that an export starts from, whoever made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unet_export import foreign, keras_model
from unet_export.errors import ExportError
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets.oxford_pets import check_split
from unet_runtime.core.errors import SourceError
from unet_runtime.core.spec import ModelSpec


def load_model(path: Path, description: foreign.Description | None) -> tuple[Any, ModelSpec]:
    """Load a model from a ``.keras`` file with a spec inside, or from one that ``description`` describes.

    Returns:
        (Keras model, spec).

    Raises:
        ModelFileError, ExportError: missing, damaged, or not to be exported.
    """
    if path.suffix != ".keras" and path.exists():
        raise ExportError(f"{path}: suffix {path.suffix}, expected a .keras file")
    if description is not None and path.exists():
        model, spec = foreign.load_foreign(path, description)
    else:
        artifact = read_artifact(path)
        model, spec = keras_model.load(artifact), artifact.spec
    if Path(spec.name).name != spec.name:  # it becomes a file's name
        raise ExportError(f"{path}: the model's name is {spec.name!r}, expected one without folders")
    if spec.provenance.split:
        try:
            check_split(spec.provenance.split)
        except SourceError as error:
            raise ExportError(f"{path}: its spec names {error}: train it again") from error
    return model, spec
