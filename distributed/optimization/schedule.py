"""Learning rate = base x scaling x warmup x schedule x plateau factor, as one pure function of the step."""

import math
from collections.abc import Callable
from dataclasses import dataclass

STEP_MILESTONES = (0.5, 0.75)
STEP_FACTOR = 0.1
POLYNOMIAL_POWER = 2

# What the rate is multiplied by once the warmup is over, as a function of the part of the run from there that is done.
DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "step": lambda done: STEP_FACTOR ** sum(done >= milestone for milestone in STEP_MILESTONES),
    "polynomial": lambda done: (1.0 - done) ** POLYNOMIAL_POWER,
}
# How the rate grows with the ratio of this run's batch to that of the base rate.
SCALINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda ratio: ratio,
    "sqrt": math.sqrt,
    "none": lambda ratio: 1.0,
}
# What the base rate is multiplied by in the first step of the warmup, as a function of what it is multiplied by after.
WARMUP_STARTS: dict[str, Callable[[float], float]] = {
    "base": lambda factor: 1.0,
    "hundredth": lambda factor: factor / 100,
}


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step; plain float64 arithmetic, so that all workers compute the same number.

    Attributes:
        base: the rate for ``base_batch`` examples per step.
        scaling: of ``SCALINGS``: ``linear`` (Goyal et al. 2017), ``sqrt`` (Krizhevsky 2014) or ``none``.
        global_batch, base_batch: examples per step, of this run and of the base rate.
        kind: of ``DECAYS``: ``constant``, ``cosine`` (Loshchilov & Hutter 2017, one period without restart), ``step``
            (x 0.1 after 50 % and 75 % of the steps, as He et al. 2016 for CIFAR-10) or ``polynomial`` (power 2, You et
            al. 2017).
        warmup_steps: steps over which the rate goes in a line from its start to the scaled one.
        total_steps: the length of the run.
        minimum: the rate never falls below it once the warmup is over.
        given: rates in the place of ``base`` and the decay, each for ``given_every`` steps in turn; None: these.
        warmup_from: of ``WARMUP_STARTS``: ``base``, the unscaled rate (Goyal et al. 2017, section 2.2), or
            ``hundredth``, a hundredth of the scaled rate (torchvision's classification recipes).
    """

    base: float
    scaling: str
    global_batch: int
    base_batch: int
    kind: str
    warmup_steps: int
    total_steps: int
    minimum: float = 0.0
    given: tuple[float, ...] | None = None
    given_every: int = 1
    warmup_from: str = "base"

    @property
    def factor(self) -> float:
        """What the rate is multiplied by for this run's batch."""
        return SCALINGS[self.scaling](self.global_batch / self.base_batch)

    @property
    def peak(self) -> float:
        """The scaled rate, reached after the warmup; the largest where rates are given."""
        return (self.base if self.given is None else max(self.given)) * self.factor

    def rate(self, step: int, plateau_factor: float = 1.0) -> float:
        """The rate of step ``step``, counted from 0; ``plateau_factor`` is what ReduceLROnPlateau made of it so far."""
        if self.given is not None:
            return self.given[step // self.given_every] * self._warmup(step) * plateau_factor
        rate = self.base * self._warmup(step) * self._decay(step) * plateau_factor
        return max(rate, min(self.minimum, self.peak)) if step >= self.warmup_steps else rate

    def _warmup(self, step: int) -> float:
        if step >= self.warmup_steps:
            return self.factor
        start = WARMUP_STARTS[self.warmup_from](self.factor)
        return start + (self.factor - start) * step / self.warmup_steps

    def _decay(self, step: int) -> float:
        if step < self.warmup_steps:
            return 1.0
        return DECAYS[self.kind]((step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
