"""The training step that is being traced: the one thing that layers may ask about the run around them.

A layer sees a batch, and not which step this is, whose examples these are, or that its gradient will travel.  The step
opens a context around its forward pass; dropout reads its keys from it, and dense layers leave a note in it of what
their gradient is made of, batch normalisation of what it has seen.
"""

import contextlib
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import tensorflow as tf


@dataclass(frozen=True)
class StepContext:
    """
    Attributes:
        step: int64 scalar, the number of optimizer steps taken before this one.
        sample_ids: int64 [b], the examples' indices in their source.
        awaited: makes of an exchange, a function of tensors, one whose time is known to be no computing.
        draws: how often each layer, by its id, has drawn random numbers so far.
        recorded: dense layer's name -> (inputs [b, in], outputs before the activation [b, out]), filled on the way.
        moments: what each batch normalisation, by its id, has seen of its inputs, call by call; see
            ``layers/batch_norm.py``.
    """

    step: tf.Tensor
    sample_ids: tf.Tensor
    awaited: Callable = lambda exchange: exchange
    draws: Counter[int] = field(default_factory=Counter)
    recorded: dict[str, tuple[tf.Tensor, tf.Tensor]] = field(default_factory=dict)
    moments: dict[int, list] = field(default_factory=lambda: defaultdict(list))


class _Current(threading.local):
    # Thread-local, because MirroredStrategy traces the replicas in threads of their own.
    context: StepContext | None = None


_local = _Current()


@contextlib.contextmanager
def enter(step: tf.Tensor, sample_ids: tf.Tensor, awaited: Callable = StepContext.awaited):
    """Within this block the layers are in the training step ``step`` of the examples ``sample_ids``."""
    before, _local.context = _local.context, StepContext(step, sample_ids, awaited)
    try:
        yield _local.context
    finally:
        _local.context = before


def current() -> StepContext | None:
    """The training step that is being traced, or None outside of one."""
    return _local.context
