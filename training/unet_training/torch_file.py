"""Reader of state dicts that PyTorch before 1.6 saved: PyTorch is not needed, and no code in the file is run.

Such a file is a row of pickles: a magic number, a protocol version, the writer's system, the state dict, the keys of
its storages. Then each storage follows as an int64 count and its values (torch/serialization.py, ``_legacy_save``). A
pickle can name any function and call it. This reader knows only the names that a state dict of floats needs, and they
stand for functions of this module.
"""

from __future__ import annotations

import math
import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from unet_training.errors import TrainingError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _StorageType:
    dtype: str


_STORAGE_TYPES = {
    ("torch", "FloatStorage"): _StorageType("<f4"),
    ("torch", "LongStorage"): _StorageType("<i8"),
}

_REBUILD = ("torch._utils", "_rebuild_tensor_v2")


def read_state_dict(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Tensors of a state dict by name, float32 or int64, in the file's order.

    Args:
        path: as ``torch.save`` wrote it before PyTorch 1.6, or since then with
            ``_use_new_zipfile_serialization=False``.

    Raises:
        TrainingError: the file cannot be read, is damaged, is of another kind, or names something besides tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # whatever damage makes of a pickle
        raise TrainingError(
            f"{path}: {error or type(error).__name__}; expected a state dict of float32 tensors as torch.save "
            "writes it with _use_new_zipfile_serialization=False"
        ) from error


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows four names and no other."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, tuple[str, int]] = {}
        """Key -> type of the values and their count."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _STORAGE_TYPES:
            return _STORAGE_TYPES[module, name]
        if (module, name) == _REBUILD:
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"names {module}.{name}, which no state dict of float32 tensors needs: refused")

    def persistent_load(self, identity: Any) -> str:
        kind, storage_type, key, _device, count, view = identity
        if kind != "storage" or not isinstance(storage_type, _StorageType) or view is not None:
            raise pickle.UnpicklingError(f"refers to {kind!r}, expected a storage")
        self.storages[str(key)] = (storage_type.dtype, int(count))
        return str(key)


def _rebuild(storage: str, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Tensor:
    """In place of PyTorch's function; its further arguments say how to train the tensor."""
    return _Tensor(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _read(file: BinaryIO) -> dict[str, npt.NDArray[Any]]:
    magic = _Unpickler(file).load()
    if magic != MAGIC:
        raise ValueError("does not begin with PyTorch's magic number")
    protocol = _Unpickler(file).load()
    if protocol != PROTOCOL:
        raise ValueError(f"has protocol {protocol}, expected {PROTOCOL}")
    system = _Unpickler(file).load()
    if not system["little_endian"]:
        raise ValueError("was written on a big-endian machine")
    unpickler = _Unpickler(file)
    tensors = unpickler.load()
    keys = _Unpickler(file).load()
    storages: dict[str, npt.NDArray[Any]] = {}
    for key in keys:
        dtype, count = unpickler.storages[key]
        storages[key] = _values(file, np.dtype(dtype), count)
    if file.read(1):
        raise ValueError("goes on after its last storage")
    state: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in tensors.items():
        state[str(name)] = _view(storages[tensor.storage], tensor)
    return state


def _values(file: BinaryIO, dtype: np.dtype[Any], expected: int) -> npt.NDArray[Any]:
    """Values of one storage: (count,)."""
    count = struct.unpack("<q", file.read(8))[0]
    if count != expected:
        raise ValueError(f"has a storage of {count} values, expected {expected}")
    content = file.read(count * dtype.itemsize)
    if len(content) != count * dtype.itemsize:
        raise ValueError("ends within a storage")
    return np.frombuffer(content, dtype)


def _view(storage: npt.NDArray[Any], tensor: _Tensor) -> npt.NDArray[Any]:
    """Values of a tensor in its storage, found by its strides (many tensors are transposed), as a copy in C order."""
    if len(tensor.size) != len(tensor.stride) or min((tensor.offset, *tensor.size, *tensor.stride), default=0) < 0:
        raise ValueError(f"has a tensor of size {tensor.size} with strides {tensor.stride}")
    if math.prod(tensor.size) > storage.size:
        raise ValueError(f"has a tensor of size {tensor.size} in a storage of {storage.size} values")
    last = tensor.offset
    for size, stride in zip(tensor.size, tensor.stride, strict=True):
        last += (size - 1) * stride
    if last >= storage.size:
        raise ValueError(f"has a tensor that ends at value {last} of a storage of {storage.size}")
    strides = [stride * storage.itemsize for stride in tensor.stride]
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.size, strides, writeable=False)
    return np.ascontiguousarray(view).reshape(tensor.size)
