"""Around the first import of TensorFlow and Keras: what must not be printed, loaded or read meanwhile."""

import contextlib
import os
import sys

from launch.job.environment import cuda_libraries, leftovers

# What Keras loads wherever it is installed, for pictures that nobody draws here and wrappers that nobody calls.
UNWANTED = ("matplotlib", "sklearn")


@contextlib.contextmanager
def silence(enabled: bool):
    """Keep what native libraries print to stderr while they are loaded; shown after all if loading fails.

    TensorFlow's wheel writes a few lines before its own log level is in force, so that no setting can stop them.
    """
    if not enabled:
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    # In memory: a full disk must not keep a run from starting.
    with os.fdopen(os.memfd_create("stderr"), "w+b") as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def loading(*, quiet: bool):
    """Around the first import of TensorFlow and Keras: silent if ``quiet``, without ``UNWANTED`` and the user's
    keras.json, and with the wheels' CUDA libraries."""
    hidden = [name for name in UNWANTED if sys.modules.setdefault(name, None) is None]
    cuda_libraries.load_first()
    try:
        with silence(quiet), leftovers.without_keras_file():
            yield
    finally:
        for name in hidden:
            del sys.modules[name]
