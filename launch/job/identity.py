"""By what two workers, or two runs, are seen to be alike: versions, and digests of a network and of its weights."""

import hashlib
import platform
from collections.abc import Sequence
from importlib import metadata

import keras
import numpy as np

PACKAGES = ("tensorflow", "keras", "horovod", "mpi4py", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def weights_sha256(model: keras.Model) -> str:
    """SHA-256 over all weights in ``model.weights`` order, as little-endian float32 bytes."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight, dtype="<f4").tobytes())
    return digest.hexdigest()


def model_sha256(model: keras.Model, paths: Sequence[str] | None = None) -> str:
    """SHA-256 over the weights' names, shapes and dtypes: equal for equal architectures, whatever the weights.

    Args:
        paths: the weights' names, in their order; by default their own.
    """
    paths = paths or [weight.path for weight in model.weights]
    layout = [
        (path, tuple(weight.shape), weight.dtype) for path, weight in zip(paths, model.weights, strict=True)
    ]
    return hashlib.sha256(repr(layout).encode()).hexdigest()
