"""One training step and one validation step, written once for every way to run, and the compiled calls that take many.

A host that is asked between any two steps keeps an accelerator waiting.  So ``steps`` takes k optimizer steps in one
compiled call: the rates of all of them go in as one vector, and what the host wants to know of each comes out in one
array.
"""

from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from distributed import step_context
from distributed.gradients.reduction import Exchange, Rows
from distributed.layers.batch_norm import MovingStatistics
from distributed.metrics import GlobalMetrics
from distributed.optimization.optimizer import LockstepOptimizer
from distributed.optimization.regularization import Penalties
from distributed.step_report import NOTICES, StepReport
from distributed.step_times import StepTimes, stamp
from distributed.strategies import Strategy


class LockstepModel:
    """A network together with the way its steps are taken; what is trained and saved is ``network``, a plain Keras
    model.

    Create it within ``strategy.scope()``.
    """

    def __init__(
        self,
        network: keras.Model,
        optimizer: LockstepOptimizer,
        strategy: Strategy,
        losses: Callable,
        metrics: GlobalMetrics,
        exchange: Exchange,
        moving: MovingStatistics | None = None,
        penalties: Penalties | None = None,
        *,
        class_weights: Sequence[float] | None = None,
        global_batch: int,
        accumulate: int,
    ):
        """
        Args:
            network: uint8 images [b, h, w, 3] -> float32 logits.
            optimizer: made by ``optimizer.synchronize`` for the network's trainable variables.
            strategy: how the replicas exchange.
            losses: ``(labels [b], logits) -> float32 [b]``.
            metrics: this worker's metrics.
            exchange: takes and sums the gradients of ``network``.
            moving: statistics of ``network`` that follow the steps, as the optimizer has them.
            penalties: of the network's weights, as the optimizer has them.
            class_weights: what the loss of an example of each class is multiplied by in training; None: by 1.  The
                mean is by the number of examples, not by the sum of their weights, as in Keras.
            global_batch: examples per optimizer step over all replicas.
            accumulate: micro-batches into which a replica cuts its share of them, one after the other.
        """
        self.network, self._strategy, self._losses, self._metrics = network, strategy, losses, metrics
        self._class_weights = class_weights
        self._global_batch, self._accumulate = global_batch, accumulate
        # Set by this worker's host between calls, summed over all replicas with the gradients: telling costs nothing.
        self._notices = keras.Variable(
            tf.zeros(len(NOTICES)), dtype="float32", trainable=False, aggregation="only_first_replica", name="notices"
        )
        self.times = StepTimes()
        self.take_up(optimizer, exchange, moving, penalties)

    def take_up(
        self,
        optimizer: LockstepOptimizer,
        exchange: Exchange,
        moving: MovingStatistics | None,
        penalties: Penalties | None,
    ) -> None:
        """Take steps by these from now on, as at the beginning and where other layers begin to train; arguments as
        above.  Steps are compiled anew: one that was compiled goes on training what it was compiled for."""
        self.optimizer, self._exchange, self._moving, self._penalties = optimizer, exchange, moving, penalties
        self.look_at(None)

    def look_at(self, head: keras.Model | None) -> None:
        """Compute only ``head``, the last part of the network, from now on: batches bring what the rest puts out.
        None: all of it, on images.  Call it before the first step or after ``take_up``."""
        self._computed = self.network if head is None else head
        self._gathered_at = None  # the step at which what is split was last whole
        # XLA makes convolutions on CPUs 6-7 times slower, and does not know Horovod's operations.
        self._train_step = tf.function(self._train_on, jit_compile=False, autograph=False)
        self._test_step = tf.function(self._test_on, jit_compile=False, autograph=False)
        self._training = None
        self._validation = tf.function(self._evaluate, autograph=False)

    def steps(self, batches: Iterator, rates: np.ndarray) -> StepReport:
        """Take one optimizer step for each of the learning rates, in one compiled call.

        Args:
            batches: endless, of (images uint8 [b, h, w, 3], labels int32 [b], sample ids int64 [b]).
            rates: float32 [k].
        """
        if self._training is None:
            # An argument, not captured: an iterator that lives as long as a graph may be taken down with the
            # interpreter, when its threads can no longer end.
            signature = [tf.type_spec_from_value(batches), tf.TensorSpec([None], tf.float32)]
            self._training = tf.function(self._train, input_signature=signature, autograph=False)
        rows = self._training(batches, tf.constant(rates, tf.float32)).numpy()
        replicas = self._strategy.replicas
        losses, notices, halted = np.split(rows, [replicas, replicas + len(NOTICES)], axis=1)
        return StepReport(losses * np.float32(replicas), notices, halted[:, 0] > 0)

    def _train(self, batches: Iterator, rates: tf.Tensor) -> tf.Tensor:
        count, width = tf.shape(rates)[0], self._strategy.replicas + len(NOTICES) + 1

        def step(index, rows):
            self.optimizer.learning_rate = rates[index]
            began, _ = stamp(index)
            with tf.control_dependencies([began]):
                batch = next(batches)
            row = self._strategy.run(self._train_step, batch, began)
            return index + 1, rows.write(index, row)

        rows = tf.TensorArray(tf.float32, count, element_shape=[width])
        # One after the other: Horovod's operations have names, which must not be under way twice.
        _, rows = tf.while_loop(lambda index, _: index < count, step, (0, rows), parallel_iterations=1)
        return rows.stack()

    def _train_on(self, data, began):
        """A replica's step on its batch, for which it has waited since ``began``; what ``StepReport`` is made of,
        float32 [replicas + notices + 1]."""
        variables = self.network.trainable_variables
        metrics = [tf.convert_to_tensor(variable.value) for variable in self._metric_variables]
        # Of int32, which the labels are, TensorFlow's Identity and Reshape on GPUs take only what is on the host.
        images, labels, sample_ids = data
        fetched, data = stamp((images, tf.cast(labels, tf.int64), sample_ids))
        loss, shares = self._accumulated(data, variables)
        computed, _ = stamp([loss, shares])
        rows = None if self._moving is None else shares.pop()
        # Which replica's loss is not finite must be known to all, so each reports in a place of its own.
        mine = self._strategy.replica_id()
        places = tf.pad(loss[None], [[mine, self._strategy.replicas - 1 - mine]])
        report = tf.concat([places, self._notices.value], 0)
        report, halted, summed = self.optimizer.step(shares, variables, report, rows, self.unconnected)
        # A step that was refused will be taken again, by a run that goes on: its examples do not count yet.
        for variable, before in zip(self._metric_variables, metrics, strict=True):
            variable.assign(tf.where(halted > 0, before, variable.value))
        # Whatever reads a variable that the update has written comes after all of it.
        updated, _ = stamp(tf.identity(self.optimizer.iterations.value))
        self.times.add([began, fetched, computed, summed, updated])
        return tf.concat([report, tf.cast(halted, tf.float32)[None]], 0)

    def _accumulated(self, data, variables):
        """The replica's shares of the mean loss and of its gradient, over its micro-batches; behind these the rows of
        the moving statistics, where there are any."""
        count, shared = self._accumulate, variables if self._moving is None else [*variables, None]
        if count == 1:
            return self._exchange.accumulate(1, lambda index: self._gradients(data, variables), shared)
        micro = self._global_batch // (count * self._strategy.replicas)
        data = [tf.reshape(part, [count, micro, *part.shape[1:]]) for part in data]
        return self._exchange.accumulate(
            count, lambda index: self._gradients([part[index] for part in data], variables), shared
        )

    def _gradients(self, data, variables):
        images, labels, sample_ids = data
        step = tf.cast(self.optimizer.iterations.value, tf.int64)
        with step_context.enter(step, sample_ids, self.times.awaited) as context, tf.GradientTape() as tape:
            logits = self._computed(images, training=True)
            losses = self._losses(labels, logits)
            if self._class_weights is not None:
                losses *= tf.gather(tf.constant(self._class_weights, tf.float32), labels)
            loss = tf.reduce_sum(losses) / self._global_batch
            scaled = self.optimizer.scale_loss(loss)
        self._metrics.update(labels, logits, losses)
        shares = self._exchange.gradients(tape, scaled, context.recorded, variables)
        return loss, shares if self._moving is None else [*shares, Rows(self._moving.row(context))]

    @property
    def unconnected(self) -> list[keras.Variable]:
        """Weights on which neither the loss nor a penalty depends, once a step has been taken: they do not learn."""
        penalized = self._penalties or ()
        return [variable for variable in self._exchange.unconnected if variable not in penalized]

    def evaluate(self, batches: Iterator, count: int) -> None:
        """Add ``count`` batches of (images, labels, weights float32 [b]) to the metrics, in one compiled call; weight 0
        marks padding."""
        self._validation(batches, tf.constant(count))

    def _evaluate(self, batches, count):
        def step(index):
            self._strategy.run(self._test_step, next(batches))
            return index + 1

        return tf.while_loop(lambda index: index < count, step, (0,), parallel_iterations=1)

    def _test_on(self, data):
        images, labels, weights = data
        logits = self._computed(images, training=False)
        self._metrics.update(labels, logits, self._losses(labels, logits), weights)

    def tell(self, names: set[str]) -> None:
        """Give these of ``NOTICES`` to all workers with the next step."""
        self._notices.assign([float(name in names) for name in NOTICES])

    def shard(self) -> None:
        """Take up the network's weights and the optimizer's state as they are now; call it before the first step."""
        if self._exchange.split is not None:
            self._exchange.split.shard()
            self._gathered_at = int(self.optimizer.iterations)

    def gather(self) -> None:
        """Make the network's weights and the optimizer's state those of the latest step, where workers own parts of
        them; all workers must call it, at the same step."""
        if self._exchange.split is not None and self._gathered_at != int(self.optimizer.iterations):
            self._exchange.split.gather()
            self._gathered_at = int(self.optimizer.iterations)

    def results(self) -> dict[str, float]:
        """The metrics over all workers, since the last reset; all workers must call it."""
        return self._metrics.results()

    def regularization(self) -> dict[str, float]:
        """The penalties of the weights as they are, under the name of a metric; empty where there are none."""
        return {"regularization": self._penalties.value()} if self._penalties else {}

    def reset_metrics(self) -> None:
        """Begin the metrics anew: once per epoch and once per validation."""
        for metric in self._metrics.all:
            metric.reset_state()

    def metric_states(self) -> list:
        """The metrics' states so far, of each replica of the run, as a JSON value; all workers must call it."""
        return self._strategy.replica_values(self._metric_variables)

    def restore_metric_states(self, states: list) -> None:
        """Take up what ``metric_states`` gave; all workers must call it with the same value."""
        self._strategy.assign_replica_values(self._metric_variables, states)

    def examples_here(self) -> int:
        """Examples since the last reset on this worker."""
        return int(self._metrics.examples.result())

    @property
    def _metric_variables(self):
        return [variable for metric in self._metrics.all for variable in metric.variables]
