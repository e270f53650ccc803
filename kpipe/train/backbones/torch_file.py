"""A reader of PyTorch weights files that needs no PyTorch and runs no pickled code.

    file := magic, protocol, system info, {name: tensor record}, [storage key, ...], storage*
    storage := element count (8 bytes, little endian), raw elements

This is the format of `torch.save` before version 1.6. The first five parts are pickles, and a
pickle can run any code, change objects behind their checks, or claim all memory. So the reader
allows the four names and the operations that a table of tensors needs, and rejects a file with any
other. What the names stand for has no attributes that a pickle could set.
"""

from __future__ import annotations

import math
import os
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from kpipe.errors import WeightsError
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["read_torch_file"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


# What pickles of protocol 2 consist of, written by Python 2 or 3.
_OPERATIONS = (
    *("PROTO", "STOP", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "MARK", "NONE", "NEWTRUE"),
    *("NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "BINSTRING"),
    *("SHORT_BINSTRING", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST"),
    *("APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
)


class _StorageType(NamedTuple):
    dtype: str


class _Storage(NamedTuple):
    key: str
    dtype: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Rebuild:
    """Replace `torch._utils._rebuild_tensor_v2`: record where the tensor is stored."""

    __slots__ = ()

    def __call__(
        self,
        storage: _Storage,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        *_: object,
    ) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise pickle.UnpicklingError("a tensor without a storage")
        if not type(shape) is type(strides) is tuple or len(shape) > 32:
            raise pickle.UnpicklingError("a tensor with an impossible shape")
        numbers = (offset, *shape, *strides)
        if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
            raise pickle.UnpicklingError("a tensor with an impossible shape")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
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
        if type(key) is not str:
            raise pickle.UnpicklingError("a storage without a name")
        if type(size) is not int or size < 0:
            raise pickle.UnpicklingError("a storage with an impossible size")
        return _Storage(key, storage_type.dtype, size)


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


def _load(file: BinaryIO) -> Any:
    """Return the object of the next pickle, after a look at all of its operations."""
    start = file.tell()
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if operation.name not in _OPERATIONS:
            raise pickle.UnpicklingError(
                f"no table of tensors needs the operation {operation.name}"
            )
        # The unpickler makes as many places as the highest index, before it fills one.
        if operation.name.endswith("BINPUT") and int(argument or 0) > count:
            raise pickle.UnpicklingError(f"object {argument} of a pickle of {count} operations")
    file.seek(start)
    return _Unpickler(file).load()


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    if _load(file) != _MAGIC:
        raise ValueError("the magic number is not PyTorch's")
    if _load(file) != _PROTOCOL:
        raise ValueError("unknown protocol")
    if _load(file).get("little_endian") is not True:
        raise ValueError("not little endian")
    table = _load(file)
    keys = _load(file)
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
    count = math.prod(tensor.shape)
    if count > storage.size:  # strides of 0 would make any number out of one
        raise ValueError(f"a tensor of {count} elements in a storage of {storage.size}")
    empty = count == 0
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if not empty and tensor.offset + reach >= storage.size:
        raise ValueError("a tensor reaches beyond its storage")
    if empty:
        return np.zeros(tensor.shape, storage.dtype)
    strides = [step * storage.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(
        storage[tensor.offset :], tensor.shape, strides, writeable=False
    ).copy(order="C")
