"""The user's own network: what is accepted, and one sentence for each thing that is not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from launch.job.user.network import build_network
from models import ModelError

L = keras.layers


@pytest.fixture(autouse=True)
def policy_stays():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


def plain(classes, size, dtype="float32", end=None, shape=None):
    images = keras.Input((size, size, 3) if shape is None else shape, dtype=dtype)
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(L.Rescaling(1 / 255)(images)))
    x = L.Dense(1 if classes == 2 else classes, name="head")(x)
    return keras.Model(images, x if end is None else end(x), name="plain")


def sequential(classes, size):
    return keras.Sequential([L.Rescaling(1 / 255), L.Flatten(), L.Dense(classes)])


def nested(classes, size, **options):
    inner = plain(classes, size, **options)
    return keras.Sequential([keras.Input((size, size, 3)), inner])


@pytest.mark.parametrize(
    "build",
    [
        plain,
        sequential,
        nested,
        lambda classes, size: plain(classes, size, dtype="uint8"),
        lambda classes, size: plain(classes, size, shape=(None, None, 3)),
        lambda classes, size: plain(classes, size, end=L.Activation("linear")),
        lambda classes, size: plain(classes, size, end=L.Reshape((classes,))),
    ],
)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_networks_that_fit(build, policy):
    keras.config.set_dtype_policy(policy)
    network = build_network(build, 5, 8)
    logits = network(tf.zeros([3, 8, 8, 3], tf.uint8))
    assert logits.shape == (3, 5) and logits.dtype == tf.float32
    assert isinstance(network, keras.Model) and len(network.trainable_weights) >= 2


def test_two_classes_have_one_logit_and_weights_and_name_stay():
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = build_network(plain, 2, 8)
    assert network.outputs[0].shape == (None, 1) and network.name == "plain"
    assert [w.path for w in network.weights] == [w.path for w in build_network(plain, 2, 8).weights]


def test_a_float_input_gets_pixels_0_to_255():
    def build(classes, size):
        images = keras.Input((size, size, 3))
        x = L.GlobalMaxPooling2D()(images)
        return keras.Model(images, L.Dense(classes, kernel_initializer="ones")(x))

    logits = build_network(build, 3, 8)(tf.fill([1, 8, 8, 3], tf.constant(255, tf.uint8)))
    np.testing.assert_array_equal(logits, [[765.0] * 3])


def test_names_do_not_depend_on_what_was_built_before():
    names = [[layer.name for layer in build_network(sequential, 3, 8).layers] for _ in range(2)]
    assert names[0] == names[1] == ["rescaling", "flatten", "dense"]


class Net(keras.Model):
    def __init__(self, classes, size):
        super().__init__()
        self.head = L.Dense(classes)

    def call(self, images):
        return self.head(keras.ops.mean(keras.ops.cast(images, "float32"), (1, 2)))


def frozen(classes, size):
    network = plain(classes, size)
    network.trainable = False
    return network


def raw(classes, size):
    images = keras.Input((size, size, 3), dtype="uint8")
    return keras.Model(images, L.Dense(classes)(L.Flatten()(L.Conv2D(4, 3)(images))))


def deep(classes, size):
    images = x = keras.Input((None, None, 3))
    for _ in range(4):
        x = L.MaxPooling2D(2)(L.Conv2D(4, 3)(x))
    return keras.Model(images, L.Dense(classes)(L.GlobalMaxPooling2D()(x)))


def flat(classes, size, **options):
    images = keras.Input(**options)
    return keras.Model(images, L.Dense(classes)(L.Flatten()(images)))


def two_inputs(classes, size):
    images = [keras.Input((size, size, 3)) for _ in range(2)]
    return keras.Model(images, L.Dense(classes)(L.Flatten()(L.Add()(images))))


def as_dict(classes, size):
    network = plain(classes, size)
    return keras.Model(network.inputs[0], {"logits": network.outputs[0]})


TAKES_LOGITS = "but the losses here take logits; end it with a Dense layer without activation."


@pytest.mark.parametrize(
    ("build", "classes", "words"),
    [
        (lambda c, s: L.Dense(c), 3, "gave an object of type Dense, but must give a keras.Model."),
        (lambda c, s: None, 3, "gave an object of type NoneType, but must give a keras.Model."),
        (
            Net,
            3,
            "gave a model of type Net, whose layers only its own code knows, but must give a "
            "functional or sequential model; ",
        ),
        (two_inputs, 3, "gave a model of 2 inputs and 1 outputs, but it must have one of each, images and logits."),
        (as_dict, 3, "gave a model whose output is a dict, but it must be one tensor; "),
        (
            lambda c, s: plain(c, 9),
            3,
            "gave a model of images [None, 9, 9, 3] (layer 'input_layer'), but they are [None, 8, 8, 3]; "
            "write keras.Input((image_size, image_size, 3)).",
        ),
        (lambda c, s: flat(c, s, shape=(s, s, 1)), 3, "gave a model of images [None, 8, 8, 1] (layer"),
        (lambda c, s: flat(c, s, shape=(s * s * 3,)), 3, "gave a model of images [None, 192] (layer"),
        (lambda c, s: flat(c, s, shape=(s, s, 3), batch_size=4), 3, "gave a model of images [4, 8, 8, 3] (layer"),
        (
            lambda c, s: flat(c, s, shape=(s, s, 3), dtype="bool"),
            3,
            "gave a model of bool images, but pixels are uint8; ",
        ),
        (
            lambda c, s: plain(5, s),
            3,
            "gave a model that ends in [None, 5] (layer 'head'), but for 3 classes it must end in [None, 3], "
            "one logit per class.",
        ),
        (
            sequential,
            2,
            "gave a model that ends in [None, 2] (layer 'dense'), but for 2 classes it must end in [None, 1], "
            "one logit, that of class 1.",
        ),
        (
            lambda c, s: plain(c, s, end=lambda x: keras.ops.cast(x, "int32")),
            3,
            "gave a model that ends in int32 (layer 'cast'), but logits are float32.",
        ),
        (
            lambda c, s: plain(c, s, end=L.Dense(c, activation="softmax", name="predictions")),
            3,
            f"ends in softmax (layer 'predictions'), {TAKES_LOGITS}",
        ),
        (
            lambda c, s: plain(c, s, end=L.Activation("sigmoid")),
            2,
            f"ends in sigmoid (layer 'activation'), {TAKES_LOGITS}",
        ),
        (lambda c, s: plain(c, s, end=L.Softmax()), 3, f"ends in softmax (layer 'softmax'), {TAKES_LOGITS}"),
        (lambda c, s: plain(c, s, end=keras.ops.softmax), 3, f"ends in softmax (layer 'softmax'), {TAKES_LOGITS}"),
        (lambda c, s: plain(c, s, end=L.ReLU()), 3, f"ends in relu (layer 're_lu'), {TAKES_LOGITS}"),
        (lambda c, s: nested(c, s, end=L.Softmax(name="inner")), 3, f"ends in softmax (layer 'inner'), {TAKES_LOGITS}"),
        (
            lambda c, s: plain(c, s, end=lambda x: L.Activation("linear", dtype="float32")(L.Softmax()(x))),
            3,
            "ends in softmax (layer 'softmax')",
        ),
        (frozen, 3, "gave a model without trainable weights, so that there is nothing to train."),
        (
            raw,
            3,
            "gave a model that fails on images uint8 [2, 8, 8, 3] (Conv2D: Value passed to parameter 'input' has "
            "DataType uint8 not in list of allowed values: float16, bfloat16, float32, float64, int32); begin with "
            "keras.layers.Rescaling, or leave the dtype of keras.Input out.",
        ),
        (
            deep,
            3,
            "gave a model that fails on images uint8 [2, 8, 8, 3] (MaxPooling2D: Negative dimension size caused by "
            "subtracting 2 from 1).",
        ),
        (
            lambda c, s: keras.Sequential([L.Conv2D(4, 9), L.Flatten(), L.Dense(c)]),
            3,
            "gave a Sequential model that cannot be built for images [None, 8, 8, 3]: ",
        ),
    ],
)
def test_networks_that_do_not_fit(build, classes, words):
    with pytest.raises(ModelError) as error:
        build_network(build, classes, 8)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_model_in_the_place_of_a_function():
    with pytest.raises(
        ModelError, match=r"^model is of type Functional, but must be a function \(classes, image_size\) that"
    ):
        build_network(plain(3, 8), 3, 8)
