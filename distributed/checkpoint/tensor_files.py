"""One safetensors file: written from where the tensors lie, read only as expected.

The format (https://github.com/huggingface/safetensors#format) is eight bytes of header length, a JSON header that names
each tensor's dtype, shape and place, and the bytes; any safetensors library reads it.  It is written and read here
because the library's writer copies every tensor and holds the interpreter lock meanwhile, which would stop the training
beside it, and because its reader believes the file about what to allocate.
"""

import json
import os
from collections.abc import Iterator, Mapping

import numpy as np

# NumPy's name of a dtype -> the format's.
_CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "bool": "BOOL"}
_CODES |= {f"{kind}{bits}": f"{kind[0].upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
# Bytes; that of a network with 10,000 tensors has about 1 MB.
_LARGEST_HEADER = 1 << 24

# What a model expects of a file: the shape and the dtype of each tensor, by name.
Layout = Mapping[str, tuple[tuple[int, ...], np.dtype]]


class LayoutError(ValueError):
    """A file whose tensors are not those that were expected; its message says in which the two differ."""


def parts(arrays: Mapping[str, np.ndarray]) -> Iterator[memoryview | bytes]:
    """The bytes of a file that holds these arrays, piece by piece; nothing is copied but views with gaps."""
    header, end = {}, 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    yield len(text).to_bytes(8, "little") + text
    for array in arrays.values():
        yield _bytes(np.asarray(array, order="C"))


def read(file, layout: Layout) -> dict[str, np.ndarray]:
    """Read the arrays of an open binary file, after its header was compared with what is expected.

    Args:
        file: a regular file, at its beginning.
        layout: the names, shapes and dtypes it must have: these and no others.

    Raises:
        LayoutError: before anything is allocated, if the header is damaged or differs.
        OSError: if the file ends early.
    """
    header = read_header(file)
    start, arrays = file.tell(), {}
    places = _places(header, layout, file.seek(0, os.SEEK_END) - start)
    for name, offset in places.items():
        shape, dtype = layout[name]
        arrays[name] = np.empty(shape, dtype)
        file.seek(start + offset)
        if file.readinto(_bytes(arrays[name])) != arrays[name].nbytes:
            raise OSError(f"ends within {name}")
    return arrays


def read_header(file) -> dict:
    """The entries of a file by the tensors' names; the file then stands where its bytes begin.

    Raises:
        LayoutError: it is damaged, or no such file.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > _LARGEST_HEADER:
        raise LayoutError(f"a header of {length} bytes")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"a damaged header ({error})") from None
    if not isinstance(header, dict):
        raise LayoutError("a header that is no object")
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _once(pairs: list[tuple[str, object]]) -> dict:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name stands twice")
    return names


def _places(header: dict, layout: Layout, size: int) -> dict[str, int]:
    """Where each expected tensor begins after the header, in bytes, of which there are ``size``."""
    for name in header.keys() - layout.keys():
        raise LayoutError(f"{name}, which the model lacks")
    places = {}
    for name, (shape, dtype) in layout.items():
        dtype = np.dtype(dtype)
        needed = f"the model needs {dtype.name} {list(shape)}"
        match header.get(name):
            case {"dtype": str(code), "shape": list(found), "data_offsets": [int(begin), int(end)]}:
                if (code, found) != (_CODES[dtype.name], list(shape)):
                    raise LayoutError(f"{code} {found} for {name}, but {needed}")
                if not 0 <= begin <= end or end - begin != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
                    raise LayoutError(f"bytes {begin} to {end} for {name}, but {needed}")
                if end > size:
                    raise OSError(f"ends within {name}")
                places[name] = begin
            case _:
                raise LayoutError(f"nothing for {name}, but {needed}")
    return places


def _bytes(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))
