"""The PyTorch reader on valid, damaged and malicious files."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpipe.errors import WeightsError
from kpipe.train.backbones.torch_file import read_torch_file

MAGIC = 0x1950A86A20F9469CFC6C


class Storage:
    """What PyTorch would put a persistent id in the pickle for."""

    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key = key
        self.values = values


@pytest.fixture(autouse=True)
def torch(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in that lets the pickles of these tests name PyTorch's globals."""
    package, parts = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage", "HalfStorage"):
        setattr(package, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_: object) -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    parts._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", package)
    monkeypatch.setitem(sys.modules, "torch._utils", parts)
    return package


class Tensor:
    def __init__(self, storage: Storage, offset: int, shape: tuple, strides: tuple) -> None:
        self.parts = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


def dumps(value: object) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            if not isinstance(obj, Storage):
                return None
            kind = "FloatStorage" if obj.values.dtype == np.float32 else "LongStorage"
            storage_type = getattr(sys.modules["torch"], kind)
            return ("storage", storage_type, obj.key, "cpu", obj.values.size, None)

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def torch_bytes(table: object, storages: list[Storage]) -> bytes:
    parts = [MAGIC, 1001, {"little_endian": True}, table, [s.key for s in storages]]
    raw = [struct.pack("<q", s.values.size) + s.values.tobytes() for s in storages]
    return b"".join([*(dumps(part) for part in parts), *raw])


def small_file() -> bytes:
    floats = Storage("a", np.arange(12, dtype="float32"))
    longs = Storage("b", np.array([7], dtype="int64"))
    table = OrderedDict(
        plain=Tensor(floats, 0, (3, 4), (4, 1)),
        turned=Tensor(floats, 0, (4, 3), (1, 4)),
        part=Tensor(floats, 5, (2,), (1,)),
        count=Tensor(longs, 0, (), ()),
    )
    return torch_bytes(table, [floats, longs])


def test_strides_and_offsets_are_respected(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(small_file())
    tensors = read_torch_file(tmp_path / "w.pth")
    assert list(tensors) == ["plain", "turned", "part", "count"]
    values = np.arange(12, dtype="float32").reshape(3, 4)
    np.testing.assert_array_equal(tensors["plain"], values)
    np.testing.assert_array_equal(tensors["turned"], values.T)
    np.testing.assert_array_equal(tensors["part"], [5, 6])
    assert tensors["count"] == 7


def test_a_pickle_that_would_run_code_is_rejected(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "w.pth").write_bytes(torch_bytes(Malicious(), []))
    with pytest.raises(WeightsError, match="mkdir"):
        read_torch_file(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


INDEX = struct.pack("<I", 2**31)  # 16 GB of places in the memo of an unpickler
LENGTH = struct.pack("<Q", 2**33)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x80\x02}r" + INDEX + b".", "object 2147483648 of a pickle of 2 operations"),
        (b"}p2147483648\n.", "the operation PUT"),
        (b"\x80\x04\x95" + LENGTH + b"}.", "the operation FRAME"),
        (b"\x80\x05\x96" + LENGTH + b".", "cannot be read"),
        (b"\x80\x04\x8d" + LENGTH + b".", "cannot be read"),
        (b"\x80\x04\x8e" + LENGTH + b".", "cannot be read"),
    ],
)
def test_a_pickle_that_claims_all_memory_is_refused(
    content: bytes, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    for before in (b"", dumps(MAGIC) + dumps(1001) + dumps({"little_endian": True})):
        path.write_bytes(before + content)
        with pytest.raises(WeightsError, match="cannot be read") as error:
            read_torch_file(path)
        assert problem in str(error.value)


def build(state: bytes, what: bytes) -> bytes:
    """A table of one tensor, in which a pickle changes `what` by BUILD, below every check."""
    reference = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0aX\3\0\0\0cpuK\x0cNtQ"
    target = {
        b"type": b"ctorch\nFloatStorage\n" + state + b"b",
        b"function": b"ctorch._utils\n_rebuild_tensor_v2\n" + state + b"b",
    }
    inside = {b"storage": state + b"b"}.get(what, b"")
    after = {b"tensor": state + b"b"}.get(what, b"")
    before = target.get(what, b"")
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + reference
        + inside
        + b"K\0K\2\x85K\1\x85\x89}tR"
        + after
    )
    entry = b"X\1\0\0\0x" + (b"(" + before + tensor + b"t" if before else tensor)
    return b"\x80\x02}" + entry + b"s."


@pytest.mark.parametrize("what", [b"storage", b"tensor", b"type", b"function"])
@pytest.mark.parametrize(
    "state",
    [
        b"}X\6\0\0\0offsetJ\0\0\0\x80s",  # {"offset": -2**31}
        b"N}X\6\0\0\0offsetJ\0\0\0\x80s\x86",  # (None, the same), for objects with slots
        b"}X\5\0\0\0dtypeX\1\0\0\0Os",
        b"N}X\5\0\0\0dtypeX\1\0\0\0Os\x86",
    ],
)
def test_a_pickle_cannot_change_what_was_checked(what: bytes, state: bytes, tmp_path: Path) -> None:
    head = dumps(MAGIC) + dumps(1001) + dumps({"little_endian": True})
    values = struct.pack("<q", 12) + np.arange(12, dtype="float32").tobytes()
    path = tmp_path / "w.pth"
    path.write_bytes(head + build(b"", b"") + dumps(["a"]) + values)
    np.testing.assert_array_equal(read_torch_file(path)["x"], [0, 1])
    path.write_bytes(head + build(state, what) + dumps(["a"]) + values)
    with pytest.raises(WeightsError, match="cannot be read") as error:
        read_torch_file(path)
    assert "attribute" in str(error.value)


def test_a_tensor_of_more_elements_than_its_storage_is_refused(tmp_path: Path) -> None:
    floats = Storage("a", np.arange(12, dtype="float32"))
    table = OrderedDict(x=Tensor(floats, 0, (10**9,), (0,)))
    (tmp_path / "w.pth").write_bytes(torch_bytes(table, [floats]))
    with pytest.raises(WeightsError, match="1000000000 elements in a storage of 12"):
        read_torch_file(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__"])
def test_builtins_are_rejected_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(f"cbuiltins\n{name}\n.".encode())
    with pytest.raises(WeightsError, match=name):
        read_torch_file(tmp_path / "w.pth")


@pytest.mark.parametrize("parts", [(0, (13,), (1,)), (9, (4,), (1,)), (0, (2,), (12,))])
def test_a_tensor_beyond_its_storage_is_refused(parts: tuple, tmp_path: Path) -> None:
    floats = Storage("a", np.arange(12, dtype="float32"))
    (tmp_path / "w.pth").write_bytes(torch_bytes(OrderedDict(x=Tensor(floats, *parts)), [floats]))
    with pytest.raises(WeightsError, match="cannot be read"):
        read_torch_file(tmp_path / "w.pth")


def test_a_storage_of_another_size_than_declared_is_refused(tmp_path: Path) -> None:
    content = bytearray(small_file())
    content[-16:-8] = struct.pack("<q", 2**40)
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_torch_file(tmp_path / "w.pth")


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_rejected(share: float, tmp_path_factory) -> None:
    content = small_file()
    path = tmp_path_factory.mktemp("cut") / "w.pth"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match="cannot be read"):
        read_torch_file(path)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_damaged_byte_always_raises_a_weights_error(
    place: int, byte: int, tmp_path_factory
) -> None:
    content = bytearray(small_file())
    content[place % len(content)] = byte
    path = tmp_path_factory.mktemp("damaged") / "w.pth"
    path.write_bytes(content)
    refused = ""
    try:
        read = read_torch_file(path)
    except WeightsError as error:
        refused = error.what
    assert refused or isinstance(read, dict)


def test_a_zip_file_and_a_missing_file_raise_different_errors(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(WeightsError, match="zip"):
        read_torch_file(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="no weights file"):
        read_torch_file(tmp_path / "none.pth")
