"""Load an export in the program that it is made for, and compute what it answers: run as a program, in a process of its
own.

    python -I reader.py FORMAT FILE PIXELS.npy ANSWERS.npy [FILE.py ...]                keras, savedmodel, onnx, tflite
    python -I reader.py weights FILE PIXELS.npy ANSWERS.npy RUN FOLDER

Nothing of this repository is imported, nor can be, but for ``weights``, which are loaded into the run's own network.
The first picture goes alone, the others together: any size of batch must do.
"""

import os
import runpy
import sys

import numpy as np

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def keras(path: str, *files: str):
    """Keras; the files hold layers of the user's."""
    import keras

    own = {}
    for file in files:
        sys.path.insert(0, os.path.dirname(file))
        own |= runpy.run_path(file)
    network = keras.models.load_model(path, custom_objects=own, compile=False)
    return lambda pixels: np.asarray(network(pixels, training=False))


def weights(path: str, run: str, folder: str):
    """Keras' ``load_weights``, into the run's network with all its weights set to zero; the run's settings may name
    files relative to the folder."""
    os.chdir(folder)
    sys.path.insert(0, REPOSITORY)
    from launch.trained.load import load_run, with_probabilities

    network = load_run(run, precision="float32", logits=True).network
    network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    network.load_weights(path)
    network = with_probabilities(network)
    return lambda pixels: np.asarray(network(pixels, training=False))


def savedmodel(path: str):
    """TensorFlow, without Keras."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    with open(loaded.labels.asset_path.numpy()):
        serve = loaded.signatures["serving_default"]
    return lambda pixels: serve(images=tf.constant(pixels))["probabilities"].numpy()


def onnx(path: str):
    """onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    session.get_modelmeta().custom_metadata_map["labels.json"]
    return lambda pixels: session.run(["probabilities"], {"images": pixels})[0]


def tflite(path: str):
    """TensorFlow Lite's interpreter."""
    import tensorflow as tf

    run = tf.lite.Interpreter(path).get_signature_runner()
    return lambda pixels: run(images=pixels)["probabilities"]


READERS = {"keras": keras, "weights": weights, "savedmodel": savedmodel, "onnx": onnx, "tflite": tflite}


def main(form: str, path: str, pixels: str, answers: str, *more: str) -> None:
    """Load, compute, and save float32 [b, classes] as ANSWERS.npy."""
    sys.path[:] = [folder for folder in sys.path if os.path.realpath(folder) != os.path.realpath(REPOSITORY)]
    answer, images = READERS[form](path, *more), np.load(pixels)
    np.save(answers, np.concatenate([answer(images[:1]), answer(images[1:])]))


if __name__ == "__main__":
    main(*sys.argv[1:])
