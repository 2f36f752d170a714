"""Step 0 with weights that somebody else has trained; the chief reads them, all get them with the first broadcast."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import keras

from launch.job import identity
from launch.job.config import TrainConfig
from launch.job.weights import imagenet
from launch.job.weights.files import open_weights, sha256, weights_file
from launch.job.weights.match import Match, in_order, match, own_variables

SHOWN = 4  # names in one line


@dataclass(frozen=True)
class Begun:
    """What a network began with.

    Attributes:
        sha256: of the file; of the network's weights where it came from Keras.
        sentences: what was taken, what is new, what was left over.
        taken: names of the layers that got weights.
    """

    sha256: str
    sentences: list[str]
    taken: list[str]


def begin(config: TrainConfig, network: keras.Model) -> Begun:
    """Give a network the weights that ``--weights`` names wherever they fit.

    Raises:
        WeightsError: they cannot be read, or none fits; the network is then as it was.
    """
    path, what = Path(config.weights), f"--weights {config.weights}"
    imagenets = config.weights == imagenet.NAME
    with contextlib.nullcontext(imagenet.load(config)) if imagenets else open_weights(path) as stored:
        matched = match(network, stored, what)
        values = [[array.read() for array in in_order(*pair)] for pair in matched.taken]
        for (layer, _), arrays in zip(matched.taken, values, strict=True):
            for variable, value in zip(own_variables(layer), arrays, strict=True):
                variable.assign(value)
    names = [layer.name for layer, _ in matched.taken]
    digest = identity.weights_sha256(network) if imagenets else sha256(weights_file(path))
    return Begun(digest, list(_sentences(what, stored.kind, matched)), names)


def _sentences(what: str, kind: str, matched: Match):
    count = len(matched.taken)
    how = "" if matched.by == "name" else ", matched by their place, as no name is the same"
    names = _listed([layer.name for layer, _ in matched.taken])
    yield f"{what}: {kind}; {count} layer{'s' * (count > 1)} taken{how}: {names}"
    if matched.fresh:
        yield f"new, from the seed: {_listed(matched.fresh)}"
    for name, there, here in matched.unlike:
        yield f"not taken: {name}, which is {there} there and {here} here"
    if matched.left:
        yield f"left over in the file: {_listed(matched.left)}"


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names) if rest <= 1 else f"{', '.join(names[:SHOWN])} and {rest} more"
