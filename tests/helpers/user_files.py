"""Files of a user's, written and imported; ``nothing_stays_imported`` and ``write`` are fixtures of the test files."""

import sys
import textwrap

from launch.job.user import code as user_code

# A network that trains in a moment, for real command lines.
SMALL = """
import keras

def build(classes, image_size):
    layers = keras.layers
    return keras.Sequential([keras.Input((image_size, image_size, 3)), layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(classes)])
"""


def nothing_stays_imported():
    """Each test imports its files anew, and leaves none behind."""
    for name in [name for name in sys.modules if name.startswith("lockstep_user_")]:
        del sys.modules[name]  # of another test file in this process
    path, modules = [*sys.path], {*sys.modules}
    yield
    sys.path[:] = path
    for name in {*sys.modules} - modules:
        if name.startswith("lockstep_user_") or "helper" in name:
            del sys.modules[name]
    user_code._loaded.clear()


def write(tmp_path):
    """Write a file and give its reference."""

    def write(text: str, name: str = "build", file: str = "net.py") -> str:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return f"{path}:{name}"

    return write


def one_line(error) -> str:
    """What an error says, in one line."""
    text = str(error.value)
    assert "\n" not in text
    return text
