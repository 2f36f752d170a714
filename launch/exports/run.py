"""One export: loaded, written beside its place, checked by another process, and only then given its name."""

import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from distributed.checkpoint import disk
from launch.exports import check, pictures
from launch.exports.formats import FORMATS, Format
from launch.exports.plain import layers_of_others, plain_network
from launch.job import environment
from launch.job.preparation import stages
from launch.job.user import code as user_code
from launch.trained import record as records
from launch.trained.load import Found, find, load_network, with_probabilities
from launch.trained.program import OutputError, check_writable
from models import applications

PROBABILITIES = "probabilities, one per class"


USER_ERRORS = (*stages.USER_ERRORS, OutputError)


def export(run: str, form: str, checkpoint: str = "best", out: Path | None = None, overwrite: bool = False) -> str:
    """Write what a run has learnt in one of ``FORMATS``.

    Args:
        run: a run directory or one of its checkpoints.
        form: a key of ``FORMATS``.
        checkpoint: best, last, or the path of one.
        out: the file, or the folder of a SavedModel; None gives it the format's name in the run directory.
        overwrite: whether an export of that name may be replaced.

    Returns:
        Lines for people: what was written, how closely it agrees with the run, how to load it.

    Raises:
        USER_ERRORS: one sentence; nothing is left of the export, and what was there before is untouched.
    """
    format = FORMATS[form]
    # The run and the file must be compared on one kind of device, and the file's may know no GPU.
    tf.config.set_visible_devices([], "GPU")
    found = find(run, checkpoint)
    target = _target(found, format, out)
    _check_place(target, form, overwrite)
    logits = load_network(found, "float32")
    network, record = with_probabilities(logits), found.record
    pixels, what = pictures.sample(found)
    expected = np.asarray(network(pixels, training=False))
    if form == "weights":
        written = logits
    else:
        written, record = plain_network(network, record.image_size), dataclasses.replace(record, outputs=PROBABILITIES)
    with _beside(target) as temporary:
        _write(format, written, record, temporary / target.name)
        difference, own = _compare(form, temporary / target.name, pixels, expected, found, written)
        if not difference <= format.tolerance:  # NaN too
            raise OutputError(
                f"{target} would differ from the run by {difference:.1e} on {what}, more than the "
                f"{format.tolerance:.0e} that is allowed; it was deleted"
            )
        if not format.has_record:
            records.write(record, temporary)
        _commit(temporary, target)
    size = sum(file.stat().st_size for file in (target, *target.rglob("*")) if file.is_file())
    return "\n".join(
        (
            f"{target}: {size / 1e6:,.1f} MB, from {found.path.name}; on {len(pixels)} {what} it differs from the run "
            f"by at most {difference:.1e} (allowed: {format.tolerance:.0e})",
            *(f"    {line}" for line in _usage(form, target, found, own).splitlines()),
        )
    )


def labels_of(target: Path) -> Path:
    """Where the record of an export lies that cannot hold it: beside it, and named after it, since exports of many
    runs may share a folder."""
    return target.with_name(f"{target.name}.{records.FILE}")


def _target(found: Found, format: Format, out: Path | None) -> Path:
    if out is None:
        if found.run is None:
            raise OutputError(f"{found.path} stands alone; say with --out where the export shall go")
        return found.run / format.name
    if not out.name:
        raise OutputError(f"--out {out} ends with no name of its own; add one, such as {out / format.name}")
    if not out.name.endswith(format.suffix) or out.name == format.suffix:
        raise OutputError(f"--out {out} must end with {format.suffix}, such as {out.parent / format.name}")
    return out


def _check_place(target: Path, form: str, overwrite: bool) -> None:
    """Refuse a place that cannot be written to, before the work is done."""
    check_writable(target.parent, "--out")
    if not target.parent.is_dir():
        raise OutputError(f"there is no folder {target.parent} for {target.name}; make it, or give another --out")
    for path in (target,) if FORMATS[form].has_record else (target, labels_of(target)):
        if not os.path.lexists(path):
            continue
        if not overwrite:
            raise OutputError(f"{path} is there already; give another name with --out, or --overwrite")
        ours = (path / "saved_model.pb").is_file() if path == target and form == "savedmodel" else path.is_file()
        if not ours or path.is_symlink():
            raise OutputError(f"{path} is no export of this format; give another name with --out")


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder beside the target, empty, and gone when the block ends, whichever way; what a kill left goes too."""
    temporary = target.with_name(f".{target.name}.exporting")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror}); give another place with --out") from error
    try:
        yield temporary
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror or error}); nothing was left of it") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(format: Format, network: keras.Model, record: records.Record, path: Path) -> None:
    """Call the format's writer; whatever a converter raises is said in one sentence."""
    failure = None
    with environment.silence(True):
        # What converters print on their way is shown nowhere, not even with their errors.
        try:
            format.write(network, record, path)
            path.stat()
        except (OutputError, OSError):
            raise
        except Exception as error:
            failure = error
    if failure:
        lines = [line.strip() for line in str(failure).splitlines() if line.strip()] or [type(failure).__name__]
        raise OutputError(f"the network cannot be written for {format.program} ({lines[0][:300]}); nothing was left")


def _compare(form: str, path: Path, pixels, expected, found: Found, network) -> tuple[float, list[str]]:
    """The largest difference from the run, and the files without which the export does not load."""
    more = [str(found.path.resolve()), os.getcwd()] if form == "weights" else []
    own = _own_files(found, network) if form == "keras" else []
    program = FORMATS[form].program
    try:
        return check.largest_difference(form, path, pixels, expected, more), []
    except check.LoadingError as error:
        if not own:
            raise OutputError(f"the export does not load in {program} ({error}); it was deleted") from error
    try:
        return check.largest_difference(form, path, pixels, expected, own), own
    except check.LoadingError as error:
        raise OutputError(
            f"the export does not load in {program}, not even with {', '.join(own)} ({error}); it was deleted"
        ) from error


def _own_files(found: Found, network: keras.Model) -> list[str]:
    """Files of the user's that hold what the network is made of."""
    modules = [sys.modules.get(type(layer).__module__) for layer in layers_of_others(network)]
    files = [module.__file__ for module in modules if getattr(module, "__file__", None)]
    if user_code.is_reference(found.config.model):
        files.append(str(user_code.find_file(found.config.model, "--model").path))
    return list(dict.fromkeys(files))


def _commit(temporary: Path, target: Path) -> None:
    """Give everything its name, once it is on the disk."""
    for path in temporary.rglob("*"):
        disk.flush(path)
    if (temporary / records.FILE).exists():
        os.replace(temporary / records.FILE, labels_of(target))
    former = temporary / "former"
    try:
        if target.is_dir():  # which no rename replaces
            os.rename(target, former)
        os.replace(temporary / target.name, target)
    except BaseException:
        if former.is_dir() and not os.path.lexists(target):
            os.rename(former, target)
        raise
    disk.flush(target.parent)


def _usage(form: str, target: Path, found: Found, own: list[str]) -> str:
    """How to load an export, in Python."""
    text = FORMATS[form].usage
    if form == "weights":
        text = text.replace("{build}", _building(found))
    if own:
        modules = [Path(file).stem for file in own]
        objects = f"vars({modules[0]})" if len(modules) == 1 else " | ".join(f"vars({name})" for name in modules)
        text = text.replace("import keras\n", f"import keras, {', '.join(modules)}  # it has layers of your own\n")
        text = text.replace('("{path}")', f'("{{path}}", custom_objects={objects})')
    return text.replace("{path}", str(target))


def _building(found: Found) -> str:
    """How to build a run's network before its weights are loaded, in Python."""
    config, classes, size = found.config, len(found.record.classes), found.record.image_size
    if user_code.is_reference(config.model):
        file, _, function = config.model.rpartition(":")
        loaded = f"from {Path(file).stem} import {function}"
        if config.pixels is None:
            return f"{loaded}; network = {function}({classes}, {size})"
        built = f'network = build_network({function}, {classes}, {size}, "{config.pixels}")'
        return f"{loaded}\nfrom launch.job.user.network import build_network  # of Lockstep\n{built}"
    if found.record.model != config.model:
        return "network = ...  # as it was built for the run"
    if config.model.startswith(applications.PREFIX):
        head = applications.Head(config.head, tuple(config.head_units or ()), config.dropout or 0.0)
        more = "" if config.head is None else f", applications.{head}"
        built = f'applications.build("{config.model.removeprefix(applications.PREFIX)}", {classes}, {size}{more})'
        return f"from models import applications  # of Lockstep\nnetwork = {built}"
    more = "" if config.dropout is None else f", dropout={config.dropout}"
    more += "" if config.pixels is None else f', pixels="{config.pixels}"'
    built = f'build_model("{found.record.model}", classes={classes}, image_size={size}{more})'
    return f"from models import build_model  # of Lockstep\nnetwork = {built}"
