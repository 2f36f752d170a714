"""How to repeat a run: the command."""

import shlex

from launch.comparison.differences import setting
from launch.comparison.runs import DEFAULTS, Run


def by_file(run: Run) -> str:
    """The command that reads ``config.yaml``, and writes to another run directory; with what a run of an earlier
    version did without a choice."""
    place = run.path if run.path.name not in ("", "..") else run.path.resolve()
    again = place.with_name(f"{place.name}-again")
    words = [_program(run), f"--config {shlex.quote(str(run.path / 'config.yaml'))}"]
    words += [f"--run-dir {shlex.quote(str(again))}", *(_flag(*pair) for pair in run.earlier.items())]
    return " ".join(words)


def by_flags(run: Run) -> str:
    """The command that needs no file: every setting that is not the default."""
    words = [_program(run)]
    for name, value in run.settings.items():
        if name == "run_dir" or name not in DEFAULTS or setting(value) == setting(DEFAULTS[name]):
            continue
        words.append(_flag(name, value))
    return " ".join(words)


def _flag(name: str, value: object) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {shlex.quote(setting(value))}"


def given_from_python(run: Run) -> list[str]:
    """What a script gave as an object, which no command repeats."""
    parts = {"model": "network", "dataset": "data", "callbacks": "callbacks"}
    return [part for name, part in parts.items() if "(a Python object)" in str(run.settings.get(name))]


def _program(run: Run) -> str:
    size = run.facts.get("world_size", 1)
    several = isinstance(size, int) and size > 1
    return f"horovodrun -np {size} python launch/train.py" if several else "python launch/train.py"
