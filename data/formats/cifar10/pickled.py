"""What stands in a pickle of texts, numbers and arrays, found without loading it: nothing of a pickle is run.

The instructions are listed by the standard library's `pickletools`; those that put plain values together are followed
here, and no others.
"""

import pickletools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Name(NamedTuple):
    """What an instruction would import."""

    module: str
    name: str


MAKE_ARRAY = {Name("numpy.core.multiarray", "_reconstruct"), Name("numpy._core.multiarray", "_reconstruct")}
MAKE_DTYPE = Name("numpy", "dtype")
KNOWN = {*MAKE_ARRAY, MAKE_DTYPE, Name("numpy", "ndarray")}
VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"}
OLD_TEXTS = {"BINSTRING", "SHORT_BINSTRING"}  # bytes, which are listed as latin-1
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
SILENT = {"PROTO", "FRAME", "STOP"}


@dataclass
class _Made:
    """A dtype or an array that is being made: `what` is how, `given` from what, `state` all else about it."""

    what: Name
    given: tuple
    state: tuple | None = None


class PickleError(ValueError):
    """What a pickle asks for, and is not given; its message is the end of a sentence."""


def read_pickle(content: bytes) -> object:
    """The value: dicts, lists, tuples, integers, str, bytes (Python 2's str, too) and arrays of uint8.

    Raises:
        PickleError: it asks for anything else.
        Exception: it is damaged, which shows in many ways.
    """
    stack: list = []
    marks: list[int] = []
    memo: dict[int, object] = {}

    def since_mark() -> list:
        place = marks.pop()
        values = stack[place:]
        del stack[place:]
        return values

    for code, argument, _ in pickletools.genops(content):
        match code.name:
            case name if name in VALUES:
                stack.append(argument)
            case name if name in OLD_TEXTS:
                stack.append(argument.encode("latin-1"))
            case name if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": ()}[code.name])
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack[-int(code.name[-1]) :] = [tuple(stack[-int(code.name[-1]) :])]
            case "APPEND":
                stack[-2].append(stack.pop())
            case "APPENDS":
                values = since_mark()
                stack[-1].extend(values)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                values = since_mark()
                stack[-1].update(zip(values[::2], values[1::2], strict=True))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_known(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_known(module, name))
            case "REDUCE":
                given = stack.pop()
                stack[-1] = _Made(stack[-1], given)
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case name if name not in SILENT:
                raise PickleError(f"has the instruction {name}, which no CIFAR-10 file needs: do not trust this file.")
    return _finished(stack[-1])


def _known(module: str, name: str) -> Name:
    if Name(module, name) not in KNOWN:
        raise PickleError(f"asks to load {module}.{name}, which no CIFAR-10 file needs: do not trust this file.")
    return Name(module, name)


def _finished(value: object) -> object:
    """The value of a pickle, whose arrays are made now."""
    if not isinstance(value, dict):
        return value
    return {key: _array(part) if isinstance(part, _Made) else part for key, part in value.items()}


def _array(made: _Made) -> np.ndarray | None:
    """The array, from its bytes; None where it is none of uint8."""
    _, shape, dtype, by_columns, content = made.state
    if made.what not in MAKE_ARRAY or dtype.what != MAKE_DTYPE or dtype.given[0] not in ("u1", b"u1") or by_columns:
        return None
    return np.frombuffer(content, np.uint8).reshape(shape)
