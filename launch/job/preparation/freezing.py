"""Which layers of a network train: those that ``--freeze`` leaves, later those of ``--unfreeze`` as well.

Feature extraction and fine-tuning as in https://keras.io/guides/transfer_learning: a frozen layer costs no gradient, no
exchange and no state of the optimizer, and its batch normalisation goes by what it has stored, also once it has thawed.
"""

import fnmatch

import keras

from distributed.layers import convert
from launch.job.config import ConfigError, TrainConfig

BASE = "base"
UNFREEZE_FACTOR = 0.1
_ENDS = (keras.layers.Flatten, keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)


def freeze(network: keras.Model, config: TrainConfig) -> None:
    """Freeze what ``--freeze`` names; a network without it stays as it came.

    Raises:
        ConfigError: a name that is none of its layers, or nothing is left to train.
    """
    if config.freeze is None:
        return
    frozen = find(network, config.freeze, "--freeze")
    for layer in frozen:
        layer.trainable = False
    if not network.trainable_variables:
        raise ConfigError(f"--freeze {config.freeze} leaves no layer to train; freeze fewer layers")
    if config.unfreeze is not None:
        thawing = find(network, config.unfreeze, "--unfreeze")
        if awake := [layer.name for layer in thawing if layer not in frozen and layer.variables]:
            raise ConfigError(
                f"--unfreeze {config.unfreeze} names {', '.join(awake)}, which --freeze {config.freeze} leaves awake; "
                "name frozen layers"
            )


def thaw(network: keras.Model, config: TrainConfig) -> None:
    """Let those layers train that ``--unfreeze`` names."""
    for layer in find(network, config.unfreeze or config.freeze, "--unfreeze"):
        if not isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = True


def find(network: keras.Model, patterns: str, flag: str) -> list[keras.layers.Layer]:
    """The layers without layers in them that the patterns name, also by a model that they are in.

    Raises:
        ConfigError: for all patterns that fit no layer.
    """
    inner = {id(layer): _leaves(layer) for layer in network._flatten_layers(include_self=False)}
    layers = list(network._flatten_layers(include_self=False))
    found, strange = {}, []
    for pattern in filter(None, (word.strip() for word in patterns.split(","))):
        if pattern == BASE:
            named = base(network)
        else:
            named = [layer for layer in layers if fnmatch.fnmatchcase(layer.name, pattern)]
        strange += [] if named else [pattern]
        found |= {id(leaf): leaf for layer in named for leaf in inner[id(layer)]}
    if strange or not found:
        names = [layer.name for layer in _leaves(network) if layer.variables]
        known = ", ".join(names if len(names) <= 40 else [*names[:20], "...", *names[-20:]])
        strange = ", ".join(strange) or "nothing"
        raise ConfigError(f"{flag} {patterns}: {strange} is no layer of the network; it has {known}")
    return list(found.values())


def base(network: keras.Model) -> list[keras.layers.Layer]:
    """What stands before a network's head: its layers before the last flattening or global pooling of its own.

    Raises:
        ConfigError: it has none.
    """
    layers = network.layers
    ends = [place for place, layer in enumerate(layers) if isinstance(layer, _ENDS)]
    if not ends:
        raise ConfigError(
            "--freeze base: the network has no Flatten and no global pooling before its head; name the layers instead"
        )
    return layers[: ends[-1]]


def sentence(network: keras.Model) -> str | None:
    """How much of a network trains, in words; None where all does that can."""
    layers = [layer for layer in _leaves(network) if layer._trainable_variables]
    frozen = [layer for layer in layers if not layer.trainable]
    if not frozen:
        return None
    trained = sum(variable.value.shape.num_elements() for variable in network.trainable_variables)
    names = [layer.name for layer in frozen]
    shown = ", ".join(names) if len(names) <= 4 else f"{names[0]} to {names[-1]}"
    return (
        f"{trained:,} of {network.count_params():,} parameters train; {len(frozen)} of {len(layers)} layers are "
        f"frozen: {shown}"
    )


def rate_factors(network: keras.Model, decay: float | None) -> dict[str, float]:
    """By the path of each variable what its rate is multiplied by: ``decay ** distance``, where the last layer that has
    variables has distance 0, and the one before it 1 (Howard and Ruder 2018, section 3.2)."""
    if decay is None:
        return {}
    layers = [layer for layer in _leaves(network) if layer._trainable_variables]
    return {
        variable.path: decay**distance
        for distance, layer in enumerate(reversed(layers))
        for variable in layer._trainable_variables
    }


def _leaves(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers in it that have none in them, each once, in order."""
    return [inner for inner in convert.all_layers(layer) if not inner._flatten_layers(include_self=False)]
