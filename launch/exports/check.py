"""Whether a file answers as its run does, when it is loaded by another process, in the program it is made for."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

READER = Path(__file__).with_name("reader.py")
# What Python and TensorFlow need to start at all; nothing else of this process reaches the other one.
KEPT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")


class LoadingError(ValueError):
    """A file that does not load in its own program; the message is that program's last word."""


def largest_difference(form: str, path: Path, pixels: np.ndarray, expected: np.ndarray, more: list[str]) -> float:
    """The largest difference between what a file answers and what is expected; NaN where either is NaN.

    Args:
        form: the format, a key of ``reader.READERS``.
        path: the file or folder.
        pixels: uint8 [b, s, s, 3].
        expected: probabilities float32 [b, classes].
        more: what the reader is told besides.

    Raises:
        LoadingError: it does not load, or cannot take the pixels.
    """
    with tempfile.TemporaryDirectory() as folder:
        images, answers = os.path.join(folder, "pixels.npy"), os.path.join(folder, "answers.npy")
        np.save(images, pixels)
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        # A GPU may round its factors to 10 bits (TF32), which no tolerance here allows for.
        environment |= {"HOME": folder, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
        environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
        command = [sys.executable, "-I", READER, form, path.resolve(), images, answers, *more]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise LoadingError(_last_word(done))
        given = np.load(answers)
    if given.shape != expected.shape:
        raise LoadingError(f"it answers with {list(given.shape)} numbers, expected {list(expected.shape)}")
    return float(np.abs(given.astype(np.float64) - expected).max())


def _last_word(done: subprocess.CompletedProcess) -> str:
    """The line with the exception's name, which others may follow, as in Keras' long explanations."""
    if done.returncode < 0:
        return f"the process was ended by signal {-done.returncode}"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    traces = [place for place, line in enumerate(lines) if line.startswith("  File ")]
    rest = [line for line in lines[traces[-1] + 1 if traces else 0 :] if not line.startswith(" ")]
    text = (rest or lines or ["no reason given"])[0]
    return text if len(text) <= 300 else f"{text[:300]} ..."
