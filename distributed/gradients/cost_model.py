"""Choose for each dense layer how its gradient travels: by what a step pays for it, as ``calibration.py`` measured.

Per step a layer's gradient costs a replica, with a global batch of ``B`` examples on ``N`` replicas:

* *allreduce*: ``2 (N-1)/N in out`` numbers on the wire (the bandwidth-optimal all-reduce of Patarasuk and Yuan 2009),
  and the product over its own ``B/N`` examples;
* *factors*: ``(N-1)/N B (in + out)`` numbers on the wire, and the product over all ``B`` examples;
* *split*, of two layers in a row (see ``tensor_parallel.py``): ``2 (N-1)/N B in`` of the first and ``2 (N-1)/N B out``
  of the second, in four exchanges that the step waits for, and an N-th of the products over all ``B`` examples.

Dense layers come last, so that their gradients are known first: sums and factors travel while the rest of the backward
pass is computed, and only what is left of them when that ends is charged, as Goyal et al. 2017 (section 4) describe it.
The product of gathered factors comes after both and is charged in full, and so are the exchanges of a split.

The latency of the sums is not counted: other gradients are summed in the same exchange anyway.  That of the gathers is,
once for all layers: they share one exchange, which a step without factors does not have.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

COPIES = 3  # of each weight that is gathered after a split: itself, and the optimizer's state


@dataclass(frozen=True)
class Line:
    """Time of one operation over its size: ``latency + per_unit * size``, in seconds."""

    latency: float
    per_unit: float

    def seconds(self, size: float) -> float:
        return self.latency + self.per_unit * size


@dataclass(frozen=True)
class Calibration:
    """What exchanging and multiplying cost here.

    Attributes:
        reduce, gather: over the bytes that a replica hands in.
        multiply: of the product of factors, over the examples, per number of the kernel.
        overlap: which part of an exchange takes no time from what is computed meanwhile: 1 where the network works
            alone, 0 where it is the cores that copy and add.
    """

    reduce: Line
    gather: Line
    multiply: Line
    overlap: float = 0.0


@dataclass(frozen=True)
class Rest:
    """What a step has besides the gradients of dense layers.

    Attributes:
        numbers: parameters whose gradients are summed in any case.
        backward: seconds of the backward pass that are left when the dense layers' gradients are known.
    """

    numbers: int = 0
    backward: float = 0.0


@dataclass(frozen=True)
class Choice:
    """How one layer's gradient travels, and its share of what each way was predicted to cost per step and replica."""

    scheme: str
    bytes: int  # on the wire, sent by each replica
    allreduce_bytes: int
    seconds: float | None = None  # None: decided by bytes alone
    allreduce_seconds: float | None = None


@dataclass(frozen=True)
class Way:
    """One layer by one scheme: bytes on the wire, and seconds per step of what may hide behind the backward pass
    (``exchanged``), of products, and of what the step waits for."""

    scheme: str
    bytes: int
    exchanged: float = 0.0
    multiplied: float = 0.0
    waited: float = 0.0

    @property
    def seconds(self) -> float:
        """With nothing hidden."""
        return self.exchanged + self.multiplied + self.waited


Ways = Mapping[str, Way]  # dense layer's name -> how its gradient travels


def choose(
    layers: Mapping[str, tuple[int, int]],
    *,
    exchange: str,
    global_batch: int,
    replicas: int,
    item_bytes: int,
    calibration: Calibration | None,
    pair: tuple[str, str] | None = None,
    gather_every: int = 1,
    rest: Rest = Rest(),  # noqa: B008
) -> dict[str, Choice]:
    """Choose for each layer.

    Args:
        layers: name -> (in, out) of the kernel.
        exchange: ``auto``, or the one way for all layers; ``split`` is that of the pair, the others' is chosen.
        global_batch: examples per optimizer step.
        replicas: copies of the model that exchange.
        item_bytes: size of one number of the factors; gradients travel as float32.
        calibration: None decides ``auto`` by bytes alone, the same for any number of replicas, and never to split.
        pair: names of two layers in a row that may be split.
        gather_every: steps after which what is split is gathered, to be saved or compared.
        rest: what else the step computes and exchanges.
    """
    scale = (global_batch, replicas, calibration)
    summed = {name: _summed(*shape, *scale) for name, shape in layers.items()}
    factors = {name: _factors(*shape, item_bytes, *scale) for name, shape in layers.items()}
    split = _split(pair, layers, gather_every, *scale) if pair else {}
    if exchange in ("allreduce", "factors"):
        chosen = summed if exchange == "allreduce" else factors
    elif calibration is None:
        # Bytes of any number of replicas compare as those of a large one.
        shorter = {name for name, (i, o) in layers.items() if global_batch * (i + o) < 2 * i * o}
        chosen = {name: (factors if name in shorter else summed)[name] for name in layers}
        chosen |= split if exchange == "split" else {}
    else:
        fixed = [split] if exchange == "split" else [{}, split]
        candidates = [ways for some in fixed for ways in _candidates(summed, factors, some)]
        chosen = min(candidates, key=lambda ways: step_seconds(ways, calibration, rest))
    return _shared_out(chosen, summed, calibration, rest)


def step_seconds(ways: Ways, calibration: Calibration, rest: Rest) -> float:
    """What a step is longer for exchanging and multiplying in these ways than for the rest of its backward pass."""

    def beside(exchanged: float, computed: float) -> float:
        return exchanged + computed - calibration.overlap * min(exchanged, computed)

    factors = [way for way in ways.values() if way.scheme == "factors"]
    others = [way for way in ways.values() if way.scheme != "factors"]
    gathered = sum(way.exchanged for way in factors) + (calibration.gather.latency if factors else 0.0)
    summed = sum(way.exchanged for way in others) + calibration.reduce.per_unit * 4 * rest.numbers
    products = sum(way.multiplied for way in factors)
    # Whichever ends last: the products, which need the factors and the device, or the exchanges behind one another.
    ended = max(beside(gathered, rest.backward) + products, beside(gathered + summed, rest.backward + products))
    return ended - rest.backward + sum(way.multiplied + way.waited for way in others)


def _candidates(summed: Ways, factors: Ways, split: Ways) -> list[dict[str, Way]]:
    """Combinations worth comparing: none by factors, then one layer more each time, those first whose factors spare
    most seconds of exchange for a second of multiplication."""

    def worth(name: str) -> float:
        spared = summed[name].exchanged - factors[name].exchanged
        return spared / max(factors[name].multiplied - summed[name].multiplied, 1e-12)

    names = sorted((name for name in summed if name not in split), key=worth, reverse=True)
    return [{**summed, **{name: factors[name] for name in names[:count]}, **split} for count in range(len(names) + 1)]


def _shared_out(chosen: Ways, summed: Ways, calibration: Calibration | None, rest: Rest) -> dict[str, Choice]:
    """The choices, with what the step pays for all of them shared out by what each takes when nothing is hidden."""

    def shares(ways: Ways) -> dict[str, float | None]:
        if calibration is None:
            return dict.fromkeys(ways)
        whole = sum(way.seconds for way in ways.values())
        # Other gradients are to be summed in any case.
        paid = step_seconds(ways, calibration, rest) - step_seconds({}, calibration, rest)
        return {name: paid * way.seconds / whole if whole else 0.0 for name, way in ways.items()}

    seconds, summed_seconds = shares(chosen), shares(summed)
    return {
        name: Choice(way.scheme, way.bytes, summed[name].bytes, seconds[name], summed_seconds[name])
        for name, way in chosen.items()
    }


def _summed(inputs: int, outputs: int, global_batch: int, replicas: int, calibration: Calibration | None) -> Way:
    numbers = inputs * outputs
    way = Way("allreduce", 2 * 4 * numbers * (replicas - 1) // replicas)
    if calibration is None:
        return way
    product = numbers * calibration.multiply.seconds(global_batch / replicas)
    return replace(way, exchanged=calibration.reduce.per_unit * 4 * numbers, multiplied=product)


def _factors(
    inputs: int, outputs: int, item_bytes: int, global_batch: int, replicas: int, calibration: Calibration | None
) -> Way:
    size = item_bytes * global_batch * (inputs + outputs)
    way = Way("factors", size * (replicas - 1) // replicas)
    if calibration is None:
        return way
    product = inputs * outputs * calibration.multiply.seconds(global_batch)
    return replace(way, exchanged=calibration.gather.per_unit * size / replicas, multiplied=product)


def _split(
    pair: tuple[str, str],
    layers: Mapping[str, tuple[int, int]],
    gather_every: int,
    global_batch: int,
    replicas: int,
    calibration: Calibration | None,
) -> dict[str, Way]:
    """The ways of a pair that is divided between the workers."""
    ways = {}
    for name, width in zip(pair, (layers[pair[0]][0], layers[pair[1]][1]), strict=True):
        way, numbers = Way("split", 2 * 4 * global_batch * width * (replicas - 1) // replicas), 1.0
        if calibration is not None:
            numbers, rows = layers[name][0] * layers[name][1] / replicas, 4 * global_batch * width
            # A gather of a worker's rows, and half an all-reduce of all rows.
            waited = calibration.gather.seconds(rows / replicas) + calibration.reduce.seconds(rows / 2)
            waited += calibration.gather.seconds(4 * COPIES * numbers) / gather_every
            way = replace(way, multiplied=numbers * calibration.multiply.seconds(global_batch), waited=waited)
        ways[name] = way
    return ways
