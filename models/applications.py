"""The classification networks of ``keras.applications``, as the library builds them, with fresh weights.

Each gets its own preprocessing in front, as layers, and gives logits; so uint8 pixels go in everywhere.  Nothing here
knows a network by name: which there are, and what they make of pixels, is asked of the library.
"""

import difflib
import sys
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

# Layer names are counted per process, and checkpoints go by them; Keras has no public way to begin anew.
from keras.src.utils.naming import reset_uids

from models.layers import PIXELS, ModelError

PREFIX = "keras:"


@dataclass(frozen=True)
class Head:
    """What follows the feature maps in the place of a network's own classifier.

    Attributes:
        pooling: ``flatten``, or ``average`` or ``max`` over all places of the feature maps.
        units: of the hidden dense layers, each with ReLU.
        dropout: rate behind each of these; without any, in front of the logits. 0 leaves these layers out.
    """

    pooling: str
    units: tuple[int, ...] = ()
    dropout: float = 0.0


def names() -> list[str]:
    """All networks that the installed Keras has, such as ``ResNet50``."""
    return [name for name in dir(keras.applications) if name[0].isupper()]


def build(name: str, classes: int, image_size: int, head: Head | None = None) -> keras.Model:
    """Build a network of ``keras.applications``; its initial weights follow from Keras' global seed.

    Layers are named as the library names them in a fresh process.

    Args:
        name: one of ``names()``.
        classes: at least 2.
        image_size: height and width in pixels.
        head: None keeps the network's own classifier.

    Returns:
        A functional model, flat: uint8 pixels 0..255 [b, image_size, image_size, 3] -> float32 logits [b, classes], or
        [b, 1] for two classes.

    Raises:
        ModelError: there is no such network, or it cannot be built for this size.
    """
    function = find(name)
    reset_uids()
    images = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    units = 1 if classes == 2 else classes
    top = {"classes": units, "classifier_activation": None} if head is None else {}
    try:
        network = function(
            input_tensor=_preprocess(images, function),
            input_shape=(image_size, image_size, 3),
            include_top=head is None,
            weights=None,
            **top,
        )
    except ValueError as error:
        raise ModelError(
            f"{PREFIX}{name} cannot be built for images of {image_size}x{image_size} pixels ({_reason(error)}); give a "
            "larger --image-size, or use another network"
        ) from error
    x = network.outputs[0] if head is None else _with_head(network.outputs[0], head, units)
    logits = keras.layers.Activation("linear", dtype="float32", name="float32_logits")(x)
    return keras.Model(images, logits, name=network.name)


def find(name: str) -> Callable:
    """The function that builds the network of that name.

    Raises:
        ModelError: there is none.
    """
    if name in names():
        return getattr(keras.applications, name)
    same = [known for known in names() if known.lower() == name.lower()]
    close = same or difflib.get_close_matches(name, names(), 3)
    hint = f"did you mean {' or '.join(close)}?" if close else "launch/train.py --list-models names them"
    raise ModelError(f"model is '{PREFIX}{name}', but keras.applications has no {name}; {hint}")


def pixels(name: str) -> str | None:
    """The key of ``PIXELS`` that says how a network scales pixels; None where it does so within.

    Raises:
        ModelError: there is no such network.
    """
    order, *numbers = _scaling(find(name))
    for key, (its_order, *its_numbers) in PIXELS.items():
        if order == its_order and all(map(np.allclose, numbers, its_numbers)):
            return key
    return None


def _preprocess(images: keras.KerasTensor, function: Callable) -> keras.KerasTensor:
    """What the network's module calls ``preprocess_input``, as layers; nothing where that leaves pixels alone, since
    the network then scales them itself.

    In float32 whatever the precision: bfloat16 cannot tell the middle greys apart before the offset is subtracted.
    """
    order, scale, offset = _scaling(function)
    if order != [0, 1, 2]:
        images = keras.ops.take(images, order, axis=-1)
    if (scale == 1).all() and not offset.any():
        return images
    return keras.layers.Rescaling(_short(scale), offset=_short(offset), dtype="float32", name="scale")(images)


def _scaling(function: Callable) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The order that ``preprocess_input`` gives to channels, and each one's factor and offset."""
    preprocess = sys.modules[function.__module__].preprocess_input
    # All there are pick, scale and shift channels: what they make of black and of one channel each says how.
    offset, *channels = preprocess(np.concatenate([np.zeros((1, 3)), np.eye(3)])[:, None, None, :])[:, 0, 0, :]
    matrix = np.array(channels) - offset
    order = matrix.argmax(0).tolist()
    assert np.count_nonzero(matrix) == 3 and sorted(order) == [0, 1, 2], f"{function.__name__} mixes channels"
    return order, matrix.max(0).round(12), offset


def _short(values: np.ndarray) -> float | list[float]:
    """One number where all are the same."""
    return float(values[0]) if len(set(values.tolist())) == 1 else values.tolist()


def _with_head(x: keras.KerasTensor, head: Head, units: int) -> keras.KerasTensor:
    poolings = {
        "flatten": keras.layers.Flatten,
        "average": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
    }
    x = poolings[head.pooling](name=f"head_{head.pooling}")(x)
    names = [f"head_fc{number}" for number in range(1, len(head.units) + 1)]
    for name, width in zip(names, head.units, strict=True):
        x = keras.layers.Dense(width, activation="relu", kernel_initializer="he_uniform", name=name)(x)
        x = _dropped(x, head.dropout, f"{name}_dropout")
    if not names:
        x = _dropped(x, head.dropout, "head_dropout")
    return keras.layers.Dense(units, name="predictions")(x)


def _dropped(x: keras.KerasTensor, rate: float, name: str) -> keras.KerasTensor:
    return keras.layers.Dropout(rate, name=name)(x) if rate else x


def _reason(error: Exception) -> str:
    """The first sentence of Keras' many."""
    text = " ".join(str(error).split()).partition(". ")[0].strip(" .")
    return text if len(text) <= 200 else f"{text[:200]} ..."
