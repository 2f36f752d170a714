"""Tensor files: what any safetensors library reads, and nothing but what was expected."""

import io
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from distributed.checkpoint import tensor_files
from distributed.checkpoint.tensor_files import LayoutError

DTYPES = ("float64", "float32", "float16", "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
ARRAYS = {dtype: np.arange(6).reshape(2, 3).astype(dtype) for dtype in (*DTYPES, "uint64")}
ARRAYS |= {"scalar": np.array(2.5), "empty": np.zeros((0, 5), np.float32), "größe": np.ones(1, np.float32)}
SMALL = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(7, np.int64)}


def layout(arrays):
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def content(arrays):
    return b"".join(tensor_files.parts(arrays))


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        a, b = ours[name], theirs[name]
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), name
    return True


def test_the_library_reads_what_is_written_here_and_the_other_way_round(tmp_path):
    (tmp_path / "ours").write_bytes(content(ARRAYS))
    assert same(load_file(tmp_path / "ours"), ARRAYS)
    save_file(ARRAYS, tmp_path / "theirs", metadata={"format": "np"})
    with open(tmp_path / "theirs", "rb") as file:
        assert same(tensor_files.read(file, layout(ARRAYS)), ARRAYS)


def test_tensors_are_aligned_and_not_copied():
    header, *parts = tensor_files.parts(SMALL)
    assert len(header) % 8 == 0
    assert np.shares_memory(np.frombuffer(parts[0], np.uint8), SMALL["kernel"])


WRONG = {
    "shape": ({"kernel": ((3, 2), np.float32)}, r"F32 \[2, 3\] for kernel, but the model needs float32 \[3, 2\]"),
    "dtype": ({"kernel": ((2, 3), np.float64)}, r"F32 \[2, 3\] for kernel, but the model needs float64 \[2, 3\]"),
    "missing": ({"bias": ((3,), np.float32)}, r"nothing for bias, but the model needs float32 \[3\]"),
    "unknown": ({"kernel": None}, "kernel, which the model lacks"),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_model_is_refused_before_anything_is_allocated(case, monkeypatch):
    change, message = WRONG[case]
    needed = {name: place for name, place in (layout(SMALL) | change).items() if place}
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("allocated"))
    with pytest.raises(LayoutError, match=message):
        tensor_files.read(io.BytesIO(content(SMALL)), needed)


def with_header(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return io.BytesIO(len(text).to_bytes(8, "little") + text + bytes(100))


HUGE = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
GOOD = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
DAMAGED = {
    "no file": io.BytesIO(b""),
    "a length of 2**63": io.BytesIO((2**63).to_bytes(8, "little") + bytes(100)),
    "not JSON": with_header(b"x" * 50),
    "not UTF-8": with_header(b"\xff" * 50),
    "very deep": with_header(b"[" * 100_000),
    "a list": with_header([]),
    "an entry that is a number": with_header({"kernel": 3}),
    "huge": with_header({"kernel": HUGE}),
    "huge offsets": with_header({"kernel": GOOD | {"data_offsets": [0, 4 * 10**12]}}),
    "negative offsets": with_header({"kernel": GOOD | {"data_offsets": [-24, 0]}}),
    "words for numbers": with_header({"kernel": GOOD | {"data_offsets": ["0", "24"]}}),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_header_is_refused_before_anything_is_allocated(case, monkeypatch):
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("allocated"))
    with pytest.raises(LayoutError):
        tensor_files.read(DAMAGED[case], {"kernel": ((2, 3), np.float32)})


def test_a_file_that_ends_early_is_an_error():
    whole = content(SMALL)
    for size in (len(whole) - 1, len(whole) - 9):
        with pytest.raises(OSError, match="ends within"):
            tensor_files.read(io.BytesIO(whole[:size]), layout(SMALL))
