"""Write docs/flags.md from launch/job/settings/: python docs/write_flags.py"""

import sys
import types
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launch.job.config import TrainConfig

PAGE = Path(__file__).with_name("flags.md")
HEAD = """# Flags

Written by `python docs/write_flags.py` from `launch/job/settings/`, the only home of defaults; a test says that
it is current. `python launch/train.py --help` shows the same.

A flag beats the `--config` file, the file beats the default. In a file the names have underscores, on the command line
either: `--batch-size` is `--batch_size`. A switch is set by `--verbose` and unset by `--no-verbose`; `none` unsets what
has no default. `launch/train_mirrored.py` takes the same flags. What does not go together is refused with one sentence
and exit code 2.

`--config FILE` reads settings from a YAML file.
"""
GROUP = """
## {heading}

| flag | default | meaning |
|---|---|---|
"""
# What to write behind a flag whose type does not say it.
WORDS = {
    "callbacks": "FILE.py:FUNCTION",
    "class_weights": "balanced\\|FILE",
    "classes": "NAME,...\\|FILE",
    "dataset": "FILE.py:FUNCTION",
    "image_feature": "NAME",
    "label_feature": "NAME",
    "metrics": "NAME,...",
    "model": "keras:NAME\\|FILE.py:FUNCTION",
    "monitor": "METRIC",
    "profile_steps": "A,B",
    "schedule": "FILE.py:FUNCTION",
    "resume": "auto|never|PATH",
    "head_units": "N,...",
    "freeze": "base\\|LAYER,...",
    "unfreeze": "LAYER,...",
    "weights": "imagenet\\|PATH",
}


def words(name: str, annotation) -> list[str]:
    """What may stand behind a flag, from the annotation of its field."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return words(name, arguments[0])
    if origin in (Union, types.UnionType):
        parts = [words(name, part) for part in arguments if part is not type(None)]
        return list(dict.fromkeys(word for part in parts for word in part))
    if origin is Literal:
        return list(arguments)
    if annotation is bool:
        return []
    return [{int: "N", float: "X", Path: "PATH"}.get(annotation) or WORDS[name]]


def default(value) -> str:
    """A default as one would type it."""
    if value is None or isinstance(value, bool):
        return "" if value is None else "on" if value else "off"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def row(name: str, field) -> str:
    behind = "\\|".join(dict.fromkeys(words(name, field.annotation)))
    flag = f"--{name.replace('_', '-')} {behind}".strip()
    cells = f"`{flag}`", default(field.default), " ".join(field.description.split()).replace("|", "\\|")
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The whole page."""
    text = HEAD
    for group in reversed(TrainConfig.__bases__):
        text += GROUP.format(heading=group.__doc__.rstrip("."))
        text += "".join(f"{row(name, field)}\n" for name, field in group.model_fields.items())
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
