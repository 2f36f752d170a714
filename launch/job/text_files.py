"""Small text files that anybody may have written: found by their paths, read up to a bound, and YAML of which nothing
is built or run.

No TensorFlow in here.
"""

import contextlib
import os
import stat
from pathlib import Path

import yaml

LARGEST = 1 << 20  # bytes; YAML is parsed at about 100 KB a second
SHOWN = 200  # characters of somebody's text in a sentence


def expanded(path: str) -> str:
    """The path with `~` and `$VAR` replaced, which shells leave in --flag=~/place, and nothing replaces in a file."""
    return os.path.expandvars(os.path.expanduser(path))


class TextError(ValueError):
    """Why a file is not read, as the middle of a sentence."""


def read_content(path: Path, largest: int = LARGEST) -> bytes:
    """All bytes of a file or of a pipe.

    Raises:
        TextError: it cannot be read, is a device, or larger than ``largest`` bytes.
    """
    try:
        with path.open("rb") as file:
            if stat.S_ISCHR(os.fstat(file.fileno()).st_mode) and not file.isatty():
                raise TextError("it is a device")
            content = file.read(largest + 1)
    except OSError as error:
        raise TextError(error.strerror or str(error)) from error
    if len(content) > largest:
        raise TextError(f"it is larger than {largest:,} bytes")
    return content


def decoded(content: bytes) -> str:
    """Bytes as text in UTF-8, without the mark that spreadsheets put first; ``TextError`` where they are none."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError("it is not text in UTF-8") from error


class _Loader(yaml.SafeLoader):
    """Plain values alone: nothing stands for something else, which may grow without end; and a name stands once."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "found an alias (*), which is not read here", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"found {shortened(key.value)} more than once", key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> object:
    """The value of a YAML document.

    Raises:
        TextError: it is not YAML, or more than plain values; what is wrong and in which line.
    """
    with _one_sentence():
        return yaml.load(text, Loader=_Loader)


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """The names and values of a YAML mapping as they are written, where no and 007 are words; "..." for a list.

    Raises:
        TextError: it is no such mapping.
    """
    with _one_sentence():
        root = yaml.compose(text, Loader=_Loader)
    if not isinstance(root, yaml.MappingNode):
        raise TextError("it holds no names and values")
    return [tuple(part.value if isinstance(part, yaml.ScalarNode) else "..." for part in pair) for pair in root.value]


@contextlib.contextmanager
def _one_sentence():
    try:
        yield
    except yaml.YAMLError as error:
        raise TextError(shortened(" ".join(str(error).split()), 2 * SHOWN)) from error
    except Exception as error:  # a date such as 2024-99-99, a number of 5,000 digits, lists within lists without end
        raise TextError(shortened(str(error)) or type(error).__name__) from error


def shortened(text: str, most: int = SHOWN) -> str:
    """The text, or its beginning and how long it is."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"
