"""The user's code is called: what goes wrong in it is a ``UserCodeError``, so that nobody takes it for a mistake of
Lockstep's."""

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path


class UserCodeError(ValueError):
    """The user's code raised an exception, which is the cause of this one.

    Attributes:
        sentence: one line: what was called, what it raised, and in which line; also ``str`` of this error.
        traceback: several lines, as Python prints them, from the user's first frame on.
    """

    def __init__(self, sentence: str, traceback: str):
        super().__init__(sentence)
        self.sentence, self.traceback = sentence, traceback


def call(what: str, path: Path, function: Callable, *arguments):
    """Call the user's code; ``what`` that is, and in which file it is.

    Raises:
        UserCodeError: whatever it raised, also ``SystemExit``, but not ``KeyboardInterrupt``.
    """
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        text = text if len(text) <= 300 else f"{text[:300]} ..."
        raised = type(error).__name__ + (f": {text}" if text else "")
        line = user_line(error, path)
        sentence = f"{what} raised {raised}" + (f" ({line})" if line else "")
        # Of this file's frames there is one, and Python's own import machinery adds its own only below.
        frames = error.__traceback__.tb_next
        raise UserCodeError(sentence, "".join(traceback.format_exception(type(error), error, frames))) from error


def defined_in(value) -> Path:
    """The file that a function, class or object comes from; an empty path where there is none, as in a notebook."""
    try:
        home = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
        return Path(inspect.getsourcefile(inspect.unwrap(home)) or "")
    except (TypeError, ValueError, OSError):
        return Path()


def user_line(error: BaseException, path: Path) -> str | None:
    """The deepest line of the file, or of one beside it, on the way to the error."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if Path(frame.filename).parent == path.parent]
    return f"{Path(lines[-1].filename).name}, line {lines[-1].lineno}" if lines else None
