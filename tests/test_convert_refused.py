"""Layers whose result would depend on the number of workers are refused by name, all in one sentence."""

import re

import keras
import numpy as np
import pytest
from networks import flat, noise, stack

from distributed.layers.convert import LayerError, batch_norm_layers, convert
from distributed.layers.dropout import SampleDropout

layers = keras.layers

SAYS = (
    r"random numbers drawn by (.+) would depend on the number of workers; use keras.layers.Dropout instead .*--augment"
)


def refused(network):
    """What the one sentence of the refusal names: (name, class) of each layer."""
    before = [type(layer) for layer in flat(network)]
    with pytest.raises(LayerError) as error:
        convert(network, 1)
    assert isinstance(error.value, ValueError) and "\n" not in str(error.value) and ". " not in str(error.value)
    assert [type(layer) for layer in flat(network)] == before
    named = re.fullmatch(SAYS, str(error.value).replace("for pictures", ""))
    return re.findall(r"'(\w+)' \((\w+)\)", named[1] if named else str(error.value))


class Noisy(layers.Layer):
    """Draws by itself, and holds a layer that draws."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generators = [{"one": keras.random.SeedGenerator(1)}]
        self.noise = layers.GaussianNoise(0.1, name="held")

    def call(self, inputs, training=None):
        return self.noise(inputs, training=training)


class MyDropout(layers.Dropout):
    pass


def image_layers():
    """One of each of Keras' layers that change pictures by chance."""
    arguments = {
        "RandomBrightness": (0.1,),
        "RandomColorDegeneration": (0.1,),
        "RandomContrast": (0.1,),
        "RandomCrop": (4, 4),
        "RandomHue": (0.1,),
        "RandomPosterization": (4,),
        "RandomRotation": (0.1,),
        "RandomSaturation": (0.1,),
        "RandomSharpness": (0.1,),
        "RandomTranslation": (0.1, 0.1),
        "RandomZoom": (0.1,),
    }
    names = [name for name in dir(layers) if name.startswith("Rand")] + ["AugMix", "CutMix", "MixUp", "Solarization"]
    return [getattr(layers, name)(*arguments.get(name, ()), name=f"a_{name}") for name in names]


def test_all_layers_that_draw_are_named_in_one_sentence():
    drawing = [
        layers.GaussianNoise(0.1, name="a"),
        layers.GaussianDropout(0.1, name="b"),
        layers.AlphaDropout(0.1, name="c"),
        layers.SpatialDropout1D(0.1, name="d"),
        layers.SpatialDropout2D(0.1, name="e"),
        layers.SpatialDropout3D(0.1, name="f"),
        layers.Attention(dropout=0.1, name="g"),
        layers.AdditiveAttention(dropout=0.1, name="h"),
        layers.MultiHeadAttention(2, 4, dropout=0.1, name="i"),
        layers.GroupQueryAttention(4, 2, 2, dropout=0.1, name="j"),
        layers.LSTM(4, dropout=0.1, name="k"),
        layers.GRU(4, recurrent_dropout=0.1, name="l"),
        layers.SimpleRNN(4, dropout=0.1, name="m"),
        layers.ConvLSTM2D(4, 2, dropout=0.1, name="n"),
        layers.LSTMCell(4, dropout=0.1, name="o"),
        MyDropout(0.1, name="q"),
        *image_layers(),
    ]
    assert len(drawing) > 35
    inputs = keras.Input((64,))
    network = keras.Model(inputs, layers.Dropout(0.5)(inputs))
    network.others = drawing
    assert sorted(refused(network)) == sorted((layer.name, type(layer).__name__) for layer in drawing)


def test_those_that_draw_are_found_wherever_they_stand():
    noise = layers.GaussianNoise
    inputs = keras.Input((3, 4))
    x = stack(stack(noise(0.1, name="nested"), shape=(3, 4)), shape=(3, 4))(inputs)
    x = layers.TimeDistributed(noise(0.1, name="wrapped"))(x)
    x = layers.Bidirectional(layers.GRU(2, dropout=0.1, return_sequences=True, name="gru"))(x)
    attention = layers.MultiHeadAttention(2, 4, dropout=0.1, name="attention")
    x = Noisy(name="noisy")(attention(x, x))
    named = refused(keras.Model(inputs, layers.Dropout(0.5)(x)))
    assert named == [
        ("nested", "GaussianNoise"),
        ("wrapped", "GaussianNoise"),
        ("forward_gru", "GRU"),
        ("backward_gru", "GRU"),
        ("attention", "MultiHeadAttention"),
        ("noisy", "Noisy"),
        ("held", "GaussianNoise"),
    ]


def test_a_rate_of_zero_is_no_reason():
    inputs = keras.Input((3, 4))
    x = layers.GaussianNoise(0)(layers.GaussianDropout(0)(layers.AlphaDropout(0)(layers.SpatialDropout1D(0)(inputs))))
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(layers.GRU(4, return_sequences=True)(x))
    x = layers.MultiHeadAttention(2, 4)(x, x)
    network = keras.Model(inputs, layers.Dropout(0)(layers.Attention()([x, x])))
    assert convert(network, 1) is network and not any(isinstance(layer, SampleDropout) for layer in flat(network))


class Subclassed(keras.Model):
    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.inner = stack(layers.Dense(3), layers.Dropout(rate, name="deep"))

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)


class Functional(keras.Model):
    """A functional model that is a class."""

    def __init__(self):
        inputs = keras.Input((64,))
        super().__init__(inputs, layers.Dropout(0.5)(inputs))


def test_subclassed_models_are_refused_only_for_dropout():
    assert refused(Subclassed(0.5, name="mine")) == [("mine", "Subclassed"), ("deep", "Dropout")]
    assert refused(stack(Subclassed(0.5, name="mine"))) == [("mine", "Subclassed"), ("deep", "Dropout")]
    network = Subclassed(0)
    assert convert(network, 1) is network
    assert np.array_equal(noise(convert(Functional(), 1)), noise(convert(stack(layers.Dropout(0.5)), 1)))


def test_what_would_be_computed_again_backward_is_refused_only_for_dropout():
    with keras.RematScope("full"):
        inner = stack(layers.Dense(64), layers.Dropout(0.5, name="deep"))
        idle = stack(layers.Dense(64), layers.Dropout(0))
    assert refused(stack(inner)) == [(inner.name, "Sequential"), ("deep", "Dropout")]
    convert(stack(idle, layers.Dropout(0.5)), 1)


@pytest.mark.parametrize("noise_shape", ((1, 64), (64,)))
def test_one_mask_for_all_examples_is_refused_before_any_step(noise_shape):
    network = stack(layers.Dropout(0.5), layers.Dropout(0.5, noise_shape=noise_shape, name="thin"))
    assert refused(network) == [("thin", "Dropout")]
    convert(stack(layers.Dropout(0, noise_shape=noise_shape)), 1)


def test_batch_norm_is_found_unless_frozen():
    def norm(name):
        return layers.BatchNormalization(name=name)

    frozen = keras.Sequential([norm("frozen")])
    frozen.trainable = False
    found = batch_norm_layers(stack(norm("a"), keras.Sequential([norm("b")]), frozen))
    assert [layer.name for layer in found] == ["a", "b"]
    assert batch_norm_layers(stack(layers.LayerNormalization(), layers.GroupNormalization(8))) == []


class Shifted(layers.BatchNormalization):
    """One of the user's own."""


def test_other_batch_norms_are_refused_unless_frozen():
    renormed = layers.BatchNormalization(renorm=True, name="renormed")
    assert refused(stack(renormed, Shifted(name="mine"))) == [
        ("renormed", "BatchNormalization"),
        ("mine", "Shifted"),
    ]
    renormed.trainable = False
    convert(stack(renormed, layers.BatchNormalization(synchronized=True)), 1)


def test_batch_norm_that_would_be_computed_again_backward_is_refused():
    with keras.RematScope("full"):
        inner = stack(layers.Dense(64), layers.BatchNormalization(name="deep"))
    assert refused(stack(inner)) == [(inner.name, "Sequential"), ("deep", "BatchNormalization")]
