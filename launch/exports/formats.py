"""The formats: how each is written, how closely it must agree with the run, and how people load it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from launch.trained import record as records
from launch.trained.program import OutputError
from launch.trained.record import Record

HDF5_OVERHEAD = 8192  # bytes for each array, with its groups; about 3,500 were seen


class Format(NamedTuple):
    """
    Attributes:
        name: of the file or folder where nobody names one.
        suffix: what its name must end with.
        write: ``(network, record, path)``; the network is plain, see ``plain.py``, but for ``weights``.
        tolerance: the largest difference from the run's probabilities that is let pass.
        program: what loads it.
        usage: Python that loads it, with ``{path}`` in it, and ``{build}`` where it builds the network.
        has_record: whether the record of the run is inside.
    """

    name: str
    suffix: str
    write: Callable[[keras.Model, Record, Path], None]
    tolerance: float
    program: str
    usage: str
    has_record: bool


def _keras(network: keras.Model, record: Record, path: Path) -> None:
    if found := [layer.name for layer in network._flatten_layers() if isinstance(layer, keras.layers.Lambda)]:
        raise OutputError(
            f"{', '.join(found)} is a Lambda layer, which Keras refuses to load because it may be any code; write it "
            "as a layer of your own, or take --format savedmodel"
        )
    network.save(path)


def _weights(network: keras.Model, record: Record, path: Path) -> None:
    # On a disk that is full HDF5's library ends the process: whether there is room must be known before.
    size = sum(variable.value.dtype.size * int(np.prod(variable.shape)) for variable in network.variables)
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size + HDF5_OVERHEAD * (1 + len(network.variables)))
    network.save_weights(path)


class _Served(tf.Module):
    """A network as one TensorFlow function, ``serve``: images uint8 [b, s, s, 3] -> probabilities [b, classes]."""

    def __init__(self, network: keras.Model):
        super().__init__()
        # TensorFlow looks for variables in its own objects alone.
        self.network_variables = [variable.value for variable in network.variables]
        # Keras settles some things at the first call, which no graph may record.
        network(tf.zeros([1, *network.input_shape[1:]], tf.uint8), training=False)
        pixels = tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8, name="images")

        def serve(images):
            return {"probabilities": network(images, training=False)}

        self.serve = tf.function(serve, input_signature=[pixels], autograph=False)


def _savedmodel(network: keras.Model, record: Record, path: Path) -> None:
    served = _Served(network)
    records.write(record, path.parent)
    served.labels = tf.saved_model.Asset(str(path.parent / records.FILE))
    tf.saved_model.save(served, str(path), signatures={"serving_default": served.serve})
    (path.parent / records.FILE).unlink()  # it is in the folder's assets now


def _onnx(network: keras.Model, record: Record, path: Path) -> None:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import tf2onnx
    except ImportError as error:
        raise OutputError(f"--format onnx needs {error.name}, which is not installed; make setup EXPORT=1") from error
    serve = _Served(network).serve
    model, _ = tf2onnx.convert.from_function(serve, input_signature=serve.input_signature, opset=17)
    # Tensors that a layer holds, such as Normalization's mean, have become inputs that nobody could give.
    captured = {inner.name: outer for outer, inner in serve.get_concrete_function().graph.captures}
    for entry in [entry for entry in model.graph.input if entry.name in captured]:
        model.graph.input.remove(entry)
        model.graph.initializer.append(onnx.numpy_helper.from_array(captured[entry.name].numpy(), entry.name))
    onnx.helper.set_model_props(model, {records.FILE: json.dumps(record.as_json())})
    onnx.save(model, path)


def _tflite(network: keras.Model, record: Record, path: Path) -> None:
    served = _Served(network)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([served.serve.get_concrete_function()], served)
    path.write_bytes(converter.convert())


FORMATS = {
    "keras": Format(
        "model.keras",
        ".keras",
        _keras,
        1e-5,
        "Keras",
        'import keras\nnetwork = keras.models.load_model("{path}")\nprobabilities = network.predict(pixels)',
        False,
    ),
    "weights": Format(
        "model.weights.h5",
        ".weights.h5",
        _weights,
        1e-5,
        "Keras",
        '{build}\nnetwork.load_weights("{path}")\nlogits = network.predict(pixels)',
        False,
    ),
    "savedmodel": Format(
        "saved_model",
        "",
        _savedmodel,
        1e-5,
        "TensorFlow",
        'import tensorflow as tf\nserve = tf.saved_model.load("{path}").signatures["serving_default"]\n'
        'probabilities = serve(images=tf.constant(pixels))["probabilities"]',
        True,
    ),
    "onnx": Format(
        "model.onnx",
        ".onnx",
        _onnx,
        1e-4,
        "onnxruntime",
        'import onnxruntime\nsession = onnxruntime.InferenceSession("{path}")\n'
        'probabilities = session.run(["probabilities"], {"images": pixels})[0]',
        True,
    ),
    "tflite": Format(
        "model.tflite",
        ".tflite",
        _tflite,
        1e-4,
        "TensorFlow Lite",
        'import tensorflow as tf\nrun = tf.lite.Interpreter("{path}").get_signature_runner()\n'
        'probabilities = run(images=pixels)["probabilities"]',
        False,
    ),
}
