"""From a plain Keras network, whoever built it, to one whose result does not depend on who computes it, and back.

The network's own layers change; none is built anew.  ``keras.models.clone_model`` would lose what their configurations
do not hold: names of inputs, frozen sub-models, adapted statistics (keras.applications have some), lambdas, and all
that a layer of the user's does not write into its own.
"""

from collections.abc import Iterable

import keras
import numpy as np

from distributed.layers.batch_norm import SpanBatchNorm
from distributed.layers.dropout import (
    LayerError,
    SampleDropout,
    SampleStochasticDepth,
    StochasticDepth,
    one_mask_for_all,
)
from distributed.strategies import Strategy

# What Keras' own layers call the rate at which they drop without a Dropout of the network's.
RATES = ("dropout", "recurrent_dropout")
# Layer.__class__ may be an attribute of the layer's own; this sets what type() gives.
_set_type = object.__dict__["__class__"].__set__


def convert(
    network: keras.Model, seed: int, *, span: int | None = None, strategy: Strategy | None = None
) -> keras.Model:
    """Put Lockstep's own layer in the place of each layer whose result would depend on who computes it.

    These are keras.layers.Dropout, the stochastic depth of keras.applications' ConvNeXt, and
    keras.layers.BatchNormalization, wherever they stand: in nested models, in wrappers, inside of layers of the user's.
    Outside of a training step and in files they are what they were, and nothing else of the network changes.

    Args:
        network: built.
        seed: 0 or more; with its place it decides the masks of a layer that has no seed of its own.
        span: consecutive examples of a replica's micro-batch by which batch normalisation goes; None: all of them.
        strategy: over whose replicas it takes them all together; only without a span.

    Returns:
        The same network.

    Raises:
        LayerError: other layers draw random numbers or normalise by the batch, a model with a ``call`` of its own holds
            one of these layers or one is in a RematScope, or one draws a single mask for all examples. The network is
            then as it was.
    """
    layers = all_layers(network)
    _refuse_random(layers)
    _refuse_norms(layers)
    _refuse_holders(layers)
    # Keys go by the place: a dropout at rate 0 keeps its own.
    dropouts = [layer for layer in layers if _is_plain_dropout(layer) or _is_dropout(layer) and _rate(layer)]
    for layer in dropouts:
        if _is_plain_dropout(layer) and layer.rate and _has_one_mask(layer):
            raise LayerError(one_mask_for_all(layer))
    for place, layer in enumerate(dropouts):
        if _rate(layer):
            _set_type(layer, SampleDropout if _is_plain_dropout(layer) else SampleStochasticDepth)
            own = getattr(layer, "seed", None)
            layer.key = _derived(seed, place) if own is None else own
    for layer in layers:
        if _is_batch_norm(layer):
            _set_type(layer, SpanBatchNorm)
            layer.span, layer.strategy = span, strategy
    return network


def plain(network: keras.Model) -> keras.Model:
    """Take all that is Lockstep's out of a network that will not be trained any further: its layers are Keras' own and
    the user's, and their ``call`` is that of their class.

    Returns:
        The same network.
    """
    for layer in all_layers(network):
        if type(layer) in (SampleDropout, SampleStochasticDepth):
            _set_type(layer, keras.layers.Dropout if type(layer) is SampleDropout else StochasticDepth)
            del layer.key
        if type(layer) is SpanBatchNorm:
            _set_type(layer, keras.layers.BatchNormalization)
            for name in ("span", "strategy"):
                # TensorFlow does not keep on a layer what its class says already.
                vars(layer).pop(name, None)
    unwrap(network)
    return network


def unwrap(network: keras.Model) -> None:
    """Give each layer the ``call`` of its class again: gradients are taken by wrappers around it."""
    for layer in all_layers(network):
        if (getattr(vars(layer).get("call"), "__module__", None) or "").startswith("distributed."):
            del layer.call


def draws(layer: keras.layers.Layer) -> bool:
    """Whether a layer of a converted network drops something in training, frozen or not."""
    return _is_dropout(layer) and _rate(layer) > 0


def batch_norm_layers(network: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The layers that normalise by the batch in training; frozen ones normalise by what they have stored."""
    return [layer for layer in all_layers(network) if normalises_by_batch(layer)]


def all_layers(layer: keras.layers.Layer, seen: set[int] | None = None) -> list[keras.layers.Layer]:
    """The layer and all below it that Keras tracks, each once, in the order in which they were added."""
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return []
    seen.add(id(layer))
    # Keras has no public way to the layers inside of a layer.
    children = layer._flatten_layers(include_self=False, recursive=False)
    return [layer, *(found for child in children for found in all_layers(child, seen))]


def _is_plain_dropout(layer: keras.layers.Layer) -> bool:
    """Whether it is Keras' very own: what derives from it does something else, as SpatialDropout2D."""
    return type(layer) in (keras.layers.Dropout, SampleDropout)


def _is_dropout(layer: keras.layers.Layer) -> bool:
    """Whether it drops, and can be converted."""
    return _is_plain_dropout(layer) or type(layer) in (StochasticDepth, SampleStochasticDepth)


def _rate(layer: keras.layers.Layer) -> float:
    return layer.rate if _is_plain_dropout(layer) else layer.drop_path_rate


def _is_batch_norm(layer: keras.layers.Layer) -> bool:
    """Whether it is Keras' very own, and not the one that corrects its statistics by those of steps before."""
    return type(layer) in (keras.layers.BatchNormalization, SpanBatchNorm) and not layer.renorm


def normalises_by_batch(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable


def _is_kerass(layer: keras.layers.Layer) -> bool:
    return type(layer).__module__.startswith("keras.")


def _derived(seed: int, place: int) -> int:
    """The key of the dropout layer number ``place``, 32 bits."""
    # Streams 0 and 1 of a seed are the weights and the dropout of our own models.
    return int(np.random.SeedSequence((seed, 2, place)).generate_state(1)[0])


def _has_one_mask(layer: keras.layers.Dropout) -> bool:
    """Whether its ``noise_shape`` leaves the batch out, as far as is known before it is called."""
    shape = layer.noise_shape
    return shape is not None and (shape[0] == 1 or hasattr(layer, "input") and len(shape) < len(layer.input.shape))


def _draws(layer: keras.layers.Layer) -> bool:
    """Whether the layer itself draws random numbers in training, other than dropout of the above kind."""
    if _is_dropout(layer):
        return False
    rates = [getattr(layer, name, None) for name in RATES] if _is_kerass(layer) else []
    if any(isinstance(rate, int | float) for rate in rates):
        return any(rates)
    return bool(layer._seed_generators)


def _refuse_random(layers: list[keras.layers.Layer]) -> None:
    drawing = [layer for layer in layers if _draws(layer)]
    # Nobody has written the cell of an LSTM into a network.
    parts = {id(part) for layer in drawing if _is_kerass(layer) for part in all_layers(layer)[1:]}
    if drawing:
        raise LayerError(
            f"random numbers drawn by {_named(layer for layer in drawing if id(layer) not in parts)} would depend on "
            "the number of workers; use keras.layers.Dropout instead (with a noise_shape it drops whole channels), and "
            "--augment for pictures"
        )


def _refuse_norms(layers: list[keras.layers.Layer]) -> None:
    others = [layer for layer in layers if normalises_by_batch(layer) and not _is_batch_norm(layer)]
    if others:
        raise LayerError(
            f"{_named(others)} would normalise by the batch that one worker sees, so that the result would depend on "
            "their number; use a plain keras.layers.BatchNormalization without renorm, or freeze it: trainable = False"
        )


def _refuse_holders(layers: list[keras.layers.Layer]) -> None:
    for layer in layers:
        subclassed = isinstance(layer, keras.Model) and not isinstance(layer, keras.Sequential | keras.Function)
        if not (subclassed or layer._remat_mode):
            continue
        if held := [
            inner for inner in all_layers(layer) if _is_dropout(inner) and _rate(inner) or normalises_by_batch(inner)
        ]:
            if subclassed:
                why = "is a keras.Model with a call() of its own", "build it as a functional or Sequential model"
            else:
                # What is computed again in the backward pass is outside of the step's context; nor does Keras' own
                # dropout draw the same mask again.
                why = "was built in a keras.RematScope", "build it outside, since backward it would be another one"
            raise LayerError(f"{_named([layer])} {why[0]} and holds {_named(held)}; {why[1]}")


def _named(layers: Iterable[keras.layers.Layer]) -> str:
    *others, last = [f"'{layer.name}' ({layer.__class__.__name__})" for layer in layers]
    return f"{', '.join(others)} and {last}" if others else last
