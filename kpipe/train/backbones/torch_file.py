"""A reader of PyTorch weights files that needs no PyTorch and runs no pickled code.

    file := magic, protocol, system info, {name: tensor record}, [storage key, ...], storage*
    storage := element count (8 bytes, little endian), raw elements

This is the format of `torch.save` before version 1.6. The first five parts are pickles, and a
pickle can run any code. The reader allows the four names that a table of tensors needs, and rejects
a file that imports any other.
"""

from __future__ import annotations

import math
import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kpipe.errors import WeightsError
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["read_torch_file"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


@dataclass(frozen=True)
class _StorageType:
    dtype: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    size: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_: object,
) -> _Tensor:
    """Replace `torch._utils._rebuild_tensor_v2`: record where the tensor is stored."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor with an impossible shape")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch", "FloatStorage"): _StorageType("<f4"),
    ("torch", "LongStorage"): _StorageType("<i8"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise WeightsError(
                f"the weights file imports {module}.{name}, which no table of tensors needs",
                expected="only " + ", ".join(".".join(pair) for pair in _ALLOWED),
                received=f"{module}.{name}",
                fix="do not use this file; take the weights from their original source",
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _location, size, view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or view is not None:
            raise pickle.UnpicklingError("a reference to something other than a whole storage")
        if type(size) is not int or size < 0:
            raise pickle.UnpicklingError("a storage with an impossible size")
        return _Storage(str(key), storage_type.dtype, size)


@names_wrong_kinds
def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """Read all tensors of a PyTorch state dict saved in the legacy format.

    Args:
        path: a `.pth` file.

    Returns:
        Arrays float32 or int64 by tensor name, in the order of the file, each a copy.

    Raises:
        WeightsError: the file is missing, truncated, in another format, or imports code.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.train import read_torch_file
        >>> size = Path("model.pth").write_bytes(b"not a state dict")
        >>> read_torch_file("model.pth")
        Traceback (most recent call last):
        kpipe.errors.WeightsError: model.pth cannot be read as a PyTorch weights file
        ...
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise WeightsError(
            f"no weights file at {path}", expected="a PyTorch state dict", fix="check the path"
        )
    with path.open("rb") as file:
        try:
            return _read(file)
        # The exception of a damaged pickle depends on the byte that is damaged.
        except (pickle.UnpicklingError, EOFError, ArithmeticError, LookupError) as error:
            cause: Exception = error
        except (AttributeError, MemoryError, RecursionError, TypeError, ValueError) as error:
            cause = error
    raise WeightsError(
        f"{path} cannot be read as a PyTorch weights file",
        expected="a complete state dict in the format of torch.save before version 1.6",
        received=str(cause) or type(cause).__name__,
        fix="download the file again; it may be truncated, or in the newer zip format",
    ) from cause


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError("the magic number is not PyTorch's")
    if _Unpickler(file).load() != _PROTOCOL:
        raise ValueError("unknown protocol")
    if _Unpickler(file).load().get("little_endian") is not True:
        raise ValueError("not little endian")
    table = _Unpickler(file).load()
    keys = _Unpickler(file).load()
    if not isinstance(table, dict) or not all(isinstance(t, _Tensor) for t in table.values()):
        raise ValueError("the file does not hold a flat table of tensors")
    declared = {tensor.storage.key: tensor.storage for tensor in table.values()}
    if sorted(keys) != sorted(declared):
        raise ValueError("the listed storages differ from those of the tensors")
    storages = {key: _read_storage(file, declared[key]) for key in keys}
    return {name: _view(tensor, storages[tensor.storage.key]) for name, tensor in table.items()}


def _read_storage(file: BinaryIO, storage: _Storage) -> np.ndarray:
    count = int.from_bytes(_exactly(file, 8), "little")
    if count != storage.size:
        raise ValueError(f"storage {storage.key} has {count} elements, not {storage.size}")
    return np.frombuffer(_exactly(file, count * np.dtype(storage.dtype).itemsize), storage.dtype)


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError(f"the file is {count - len(data)} bytes too short")
    return data


def _view(tensor: _Tensor, storage: np.ndarray) -> np.ndarray:
    """Copy the tensor's elements out of its storage after checking its bounds."""
    empty = math.prod(tensor.shape) == 0
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if not empty and tensor.offset + reach >= storage.size:
        raise ValueError("a tensor reaches beyond its storage")
    if empty:
        return np.zeros(tensor.shape, storage.dtype)
    strides = [step * storage.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(
        storage[tensor.offset :], tensor.shape, strides, writeable=False
    ).copy(order="C")
