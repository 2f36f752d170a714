"""What a run looks at to be sure of itself: finite losses, equal replicas, each validation example once."""

import numpy as np

from distributed.in_words import VALUES, by_value, ranks_by_value, ranks_in_words
from distributed.model import LockstepModel
from distributed.step_report import StepReport
from distributed.strategies import Strategy


class NonFiniteLoss(Exception):
    """The loss of a replica was NaN or infinite at a step; no weight was changed by it or after it."""

    def __init__(self, step: int, replicas: list[int]):
        self.step, self.replicas = step, replicas
        who = f"rank {replicas[0]}" if replicas else "the summed gradient, with finite losses"
        super().__init__(
            f"the loss is not finite at step {step} (first seen on {who}); "
            "lower the learning rate, clip, or look at the data"
        )


class ReplicasDiffer(Exception):
    """The replicas no longer hold the same weights: something outside of the program has gone wrong."""


class Miscount(Exception):
    """A validation did not see each example once."""


def check_finite(report: StepReport, first_step: int) -> None:
    """Raise ``NonFiniteLoss``, on all workers alike, if the optimizer has refused one of the steps of a call.

    Args:
        first_step: number of the call's first step.
    """
    if report.halted.any():
        place = int(report.halted.argmax())
        bad = np.flatnonzero(~np.isfinite(report.losses[place]))
        raise NonFiniteLoss(first_step + place, [int(replica) for replica in bad])


def check_replicas(strategy: Strategy, model: LockstepModel, step: int) -> None:
    """Compare weights and optimizer state over all replicas; all workers must call it, after the same step.

    Raises:
        ReplicasDiffer: on all workers, naming the first variable that any two replicas do not share.
    """
    if strategy.replicas == 1:
        return
    variables = [*model.network.weights, *model.optimizer.variables]
    model.gather()
    digests = strategy.replica_digests(variables)
    for variable, by_replica in zip(variables, zip(*digests, strict=True), strict=True):
        groups = sorted(ranks_by_value(by_replica).values(), key=len)
        if len(groups) > 1:
            raise ReplicasDiffer(f"at step {step} {variable.path} {_difference(groups)}")


def _difference(groups: list[list[int]]) -> str:
    """Who differs from whom, and what to do; ``groups`` of replicas that are equal, the largest one last."""
    if 2 * len(groups[-1]) > sum(map(len, groups)):
        odd = sorted(replica for group in groups[:-1] for replica in group)
        return (
            f"of {ranks_in_words(odd, 'replica')} differs from the others'; look at the memory of that machine, then "
            "go on from the last checkpoint"
        )
    groups = sorted(groups)
    several = " and ".join(ranks_in_words(group, "replica") for group in groups[:VALUES])
    more = f" and {len(groups) - VALUES} further ones" if len(groups) > VALUES else ""
    return (
        f"differs between {several}{more}, and none has a majority that would say which is right; look at the memory "
        "of these machines, then go on from the last checkpoint"
    )


def check_count(strategy: Strategy, model: LockstepModel, seen: float, expected: int) -> None:
    """Raise ``Miscount``, on all workers, if a validation that is just over did not see each example once."""
    if seen != expected:
        counts = strategy.control.gather(model.examples_here())
        raise Miscount(
            f"validation saw {seen:.0f} examples of {expected} ({by_value(counts)}), so that its metrics "
            "would be wrong; this is a bug of the program, please report it with this line"
        )
