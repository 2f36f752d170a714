"""The networks of keras.applications: which there are, what stands in front of and behind them, which train."""

import sys

import keras
import numpy as np
import pytest

from distributed.layers.convert import convert
from models import ModelError, applications
from models.applications import Head

# The smallest of these sizes that each network can be built for; 32 where none is named.
SIZES = (32, 71, 75)
LEAST = {"Xception": 71, "InceptionV3": 75, "InceptionResNetV2": 75}
# One of each way to take pixels, and one with stochastic depth; all others when there is time.
SAMPLE = ("VGG16", "MobileNetV3Small", "EfficientNetV2B0", "Xception")


@pytest.fixture(autouse=True)
def shapes_only():
    """Networks built in here have shapes but no values."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.backend.clear_session()


def first_error(name, size):
    try:
        return convert(applications.build(name, 10, size), seed=0)
    except ModelError as error:
        return str(error)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.thorough) for name in applications.names()],
)
def test_each_network_trains_from_its_least_size_on(name):
    """It is built, nothing in it is refused, and below that size one sentence says so."""
    least = LEAST.get(name, 32)
    for size in SIZES[: SIZES.index(least)]:
        assert f"keras:{name} cannot be built for images of {size}x{size} pixels (" in first_error(name, size)
    network = first_error(name, least)
    assert isinstance(network, keras.Model), network
    assert network.inputs[0].dtype == "uint8" and network.inputs[0].shape == (None, least, least, 3)
    assert network.outputs[0].dtype == "float32" and network.outputs[0].shape == (None, 10)
    assert len({weight.path for weight in network.weights}) == len(network.weights)


def test_all_networks_are_there():
    assert {
        "ResNet50",
        "VGG16",
        "EfficientNetV2S",
        "MobileNetV3Small",
        "DenseNet121",
        "ConvNeXtTiny",
        "Xception",
    } <= set(applications.names())
    assert all(callable(getattr(keras.applications, name)) for name in applications.names())


@pytest.mark.parametrize("name", ("VGG16", "MobileNet", "DenseNet121", "EfficientNetB0"))
def test_pixels_become_what_the_library_makes_of_them(name):
    """Caffe's way, TensorFlow's, PyTorch's, and that of a network that does it itself."""
    network = applications.build(name, 10, 32)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    module = sys.modules[getattr(keras.applications, name).__module__]
    expected = module.preprocess_input(pixels.astype("float32"))
    if name == "EfficientNetB0":
        assert "scale" not in [layer.name for layer in network.layers]
        np.testing.assert_array_equal(expected, pixels)
        return
    scaled = keras.Model(network.inputs, network.get_layer("scale").output)(pixels)
    np.testing.assert_allclose(scaled, expected, rtol=1e-6, atol=1e-4 if name == "VGG16" else 1e-6)


def behind(**head):
    network = applications.build("MobileNetV3Small", 2, 32, Head(**head))
    place = next(place for place, layer in enumerate(network.layers) if layer.name.startswith("head_"))
    return [layer.name for layer in network.layers[place:]], network


@pytest.mark.parametrize("pooling, width", (("flatten", 576), ("average", 576), ("max", 576)))
def test_a_head_takes_the_place_of_the_own_classifier(pooling, width):
    names, network = behind(pooling=pooling)
    assert names == [f"head_{pooling}", "predictions", "float32_logits"]
    assert network.get_layer("predictions").kernel.shape == (width, 1)


def test_hidden_layers_and_dropout_of_a_head():
    names, network = behind(pooling="flatten", units=(64, 16), dropout=0.5)
    hidden = ["head_fc1", "head_fc1_dropout", "head_fc2", "head_fc2_dropout"]
    assert names == ["head_flatten", *hidden, "predictions", "float32_logits"]
    assert [network.get_layer(name).units for name in ("head_fc1", "head_fc2")] == [64, 16]
    names, _ = behind(pooling="average", dropout=0.5)
    assert names == ["head_average", "head_dropout", "predictions", "float32_logits"]


@pytest.mark.parametrize(
    "name, hint", (("resnet50", "did you mean ResNet50?"), ("Resnet5", "did you mean ResNet"), ("x", "--list-models"))
)
def test_an_unknown_name_is_one_sentence(name, hint):
    with pytest.raises(ModelError, match=f"model is 'keras:{name}'") as error:
        applications.build(name, 10, 32)
    assert hint in str(error.value)
