"""FILE.py:FUNCTION: the user's own network, data or callbacks, found, and loaded once per process.

What goes wrong before the user's code runs is a ``ConfigError``; what goes wrong in it is told by ``call.py``.  What
the functions give is checked in ``network.py``, ``data.py`` and ``callbacks.py``.
"""

import ast
import difflib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from launch.job.config import ConfigError
from launch.job.text_files import expanded
from launch.job.user.call import call, defined_in, user_line

# What the function of each flag is called with; one of these.
PARAMETERS = {
    "--model": (("classes", "image_size"),),
    "--dataset": ((),),
    "--callbacks": ((),),
    "--schedule": (("epoch",), ("epoch", "lr"), ("step",)),
}


@dataclass(frozen=True)
class UserFile:
    """A reference whose file was read and is Python; nothing of it has run."""

    reference: str
    path: Path  # absolute, links resolved
    name: str  # the function's
    sha256: str  # hex, of the file's bytes
    source: bytes = field(repr=False)


@dataclass(frozen=True)
class UserFunction(UserFile):
    """A function of the user's, as the command line names it.

    Calling it calls the user's.  Raises ``UserCodeError`` for whatever that raises, also ``SystemExit``, but not for
    ``KeyboardInterrupt``.
    """

    function: Callable = field(repr=False)

    def __call__(self, *arguments):
        return call(self.reference, self.path, self.function, *arguments)


def is_reference(text: str) -> bool:
    """Whether the text means a function in a file: ``net.py:build``, ``~/x/net.py:build``, also what is wrong only in
    its details, such as ``net.py`` or ``net.txt:build``; but not a plain name, nor ``keras:NAME``."""
    path, colon, _ = text.rpartition(":")
    return text.endswith(".py") or (bool(colon) and any(sign in path for sign in "./"))


def find_file(reference: str, flag: str) -> UserFile:
    """Read the file of a reference.  It needs no TensorFlow, and runs nothing of the file.

    Args:
        reference: ``FILE.py:FUNCTION``, relative to the working directory; ``~`` and ``$VAR`` are replaced.
        flag: the one it was given with, a key of ``PARAMETERS``.

    Raises:
        ConfigError: no such file, no function named, not Python.
    """
    what = f"{flag} {reference}"
    place, colon, name = reference.rpartition(":")
    if not colon:
        place, name = reference, ""
    path = Path(expanded(place)).resolve()
    if path.suffix != ".py":
        raise ConfigError(f"{what} names {path.name}, which is no .py file; write FILE.py:FUNCTION")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what}: cannot read {path} ({error.strerror}); {_look_around(path)}") from error
    try:
        tree = ast.parse(source, str(path))
        compile(tree, str(path), "exec", dont_inherit=True)  # finds more, such as a return outside of a function
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{what}: {_syntax(error, path)}; mend it") from error
    if not name.isidentifier():
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        raise ConfigError(f"{what} names no function; write FILE.py:FUNCTION ({path.name} {_has(functions)})")
    return UserFile(reference, path, name, hashlib.sha256(source).hexdigest(), source)


def load_function(reference: str, flag: str) -> UserFunction:
    """Import the file of a reference, unless this process has done so before, and take the function.

    The file's folder stays first on ``sys.path``, so that it can import what lies beside it, now and later.  Importing
    it is likely to load TensorFlow: call this when the environment is settled for that, ``find_file`` before.

    Args: as ``find_file``.

    Raises:
        ConfigError: as ``find_file``; a package that is missing, a name that is taken; no such function, or one that
            takes other arguments.
        UserCodeError: importing it raised anything else.
    """
    file = find_file(reference, flag)
    what = f"{flag} {reference}"
    module = _module(file, what)
    function = vars(module).get(file.name)
    if function is None:
        own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
        functions = [value.__name__ for value in own if inspect.isfunction(value)]
        close = difflib.get_close_matches(file.name, functions, 1)
        hint = f"did you mean {close[0]}?" if close else f"it {_has(functions)}"
        raise ConfigError(f"{what}: {file.path.name} has no function {file.name}; {hint}")
    if not callable(function):
        kind = type(function).__name__
        raise ConfigError(f"{what}: {file.name} is of type {kind}, not a function; write a function that returns it")
    _check_parameters(function, PARAMETERS[flag], file.name, what)
    return UserFunction(**vars(file), function=function)


# Path -> what it was when this process imported it.
_loaded: dict[Path, tuple[str, ModuleType]] = {}


def wrap(given, what: str):
    """A Python function of the user's as a ``UserFunction``, so that what it raises is told from a bug of Lockstep's;
    anything else as it is.

    Args:
        what: the argument that it was given as.
    """
    if not callable(given) or isinstance(given, type) or hasattr(given, "layers"):
        return given
    name = getattr(given, "__name__", type(given).__name__)
    return UserFunction(f"{what} {name}", defined_in(given), name, "", "", given)


def _module(file: UserFile, what: str) -> ModuleType:
    if file.path in _loaded and _loaded[file.path][0] == file.sha256:
        return _loaded[file.path][1]
    # Ours first: a models.py beside the user's file would take the place of ours.
    import data  # noqa: F401
    import distributed  # noqa: F401
    import launch  # noqa: F401
    import models  # noqa: F401

    folder = file.path.parent
    _check_imports(file, what)
    if sys.path[0] != str(folder):
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    # Keras writes the module's name into saved models: one that depends neither on the folder nor on chance.
    name = stem = f"lockstep_user_{file.path.stem}"
    count = 1
    while name in sys.modules and sys.modules[name].__file__ != str(file.path):
        count += 1
        name = f"{stem}_{count}"
    spec = importlib.util.spec_from_file_location(name, file.path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Just the bytes that were hashed, whatever lies in a cache.
        code = compile(file.source, str(file.path), "exec", dont_inherit=True)
        call(f"importing {file.path.name}", file.path, exec, code, vars(module))
    except BaseException as error:
        del sys.modules[name]
        _explain_import(error.__cause__, file, what)
        raise
    _loaded[file.path] = file.sha256, module
    return module


def _explain_import(cause: BaseException | None, file: UserFile, what: str) -> None:
    """Raise ConfigError for what a line of the file, but no look at its traceback, can mend."""
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        line = user_line(cause, file.path) or file.path.name
        raise ConfigError(
            f"{what}: {line}, needs {cause.name}, which is not installed here; install it, or mend the name"
        ) from cause
    if isinstance(cause, SyntaxError) and str(cause.filename).endswith(".py"):
        raise ConfigError(f"{what}: {_syntax(cause, Path(cause.filename))}; mend it") from cause


def _check_imports(file: UserFile, what: str) -> None:
    """Python keeps one module of a name: what lies beside the file would not be what it gets."""
    for name in sorted({*_imports(file.source)}):
        beside = (file.path.parent / f"{name}.py", file.path.parent / name / "__init__.py")
        own = next((path for path in beside if path.is_file()), None)
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if own and loaded and Path(loaded).resolve() != own.resolve():
            raise ConfigError(
                f"{what}: {file.path.name} imports {name}, of which there are two: {own}, and {loaded}, which is "
                "loaded already; rename the first"
            )


def _imports(source: bytes):
    """Top-level names of the modules that are imported anywhere in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def _check_parameters(function: Callable, ways: tuple[tuple[str, ...], ...], name: str, what: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some that are written in C have none
        return
    if any(can_take(signature, way) for way in ways):
        return
    takes = ", ".join(str(parameter.replace(annotation=parameter.empty)) for parameter in signature.parameters.values())
    called = " or ".join(f"{name}({', '.join(way)})" for way in ways)
    raise ConfigError(f"{what} takes ({takes}), but is called as {called}; change its parameters")


def can_take(signature: inspect.Signature, arguments: tuple[str, ...]) -> bool:
    """Whether a function of that signature can be called with so many arguments, given by place."""
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _syntax(error: SyntaxError | ValueError, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"{path.name}, line {error.lineno}, is no valid Python ({error.msg})"
    return f"{path.name} is no valid Python ({error})"


def _look_around(path: Path) -> str:
    if path.exists():
        return "give a file that can be read"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    files = sorted(other.name for other in path.parent.glob("*.py") if other.is_file())
    close = difflib.get_close_matches(path.name, files, 1)
    return f"did you mean {close[0]}?" if close else "check the path"


def _has(functions: list[str]) -> str:
    return f"has {', '.join(functions)}" if functions else "has none"
