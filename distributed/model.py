"""One training step and one validation step, written once for every strategy and called by Keras' ``fit``."""

from collections.abc import Callable

import keras
import tensorflow as tf

from distributed import step_context
from distributed.gradients.reduction import Exchange
from distributed.metrics import GlobalMetrics
from distributed.strategies import Strategy

# What a worker may have to tell the others in mid-run: a signal asked it to leave (to be resumed), the user pressed
# Ctrl-C, a checkpoint could not be written.
NOTICES = ("leave", "interrupt", "save_failed")


class LockstepModel(keras.Model):
    """A network together with the way its steps are taken; what is trained and saved is ``network``, a plain Keras
    model.

    Create it within ``strategy.scope()``.
    """

    def __init__(
        self,
        network: keras.Model,
        strategy: Strategy,
        losses: Callable,
        metrics: GlobalMetrics,
        exchange: Exchange,
        *,
        global_batch: int,
        accumulate: int,
    ):
        """
        Args:
            network: uint8 images [b, h, w, 3] -> float32 logits.
            strategy: how the replicas exchange.
            losses: ``(labels [b], logits) -> float32 [b]``.
            metrics: this worker's metrics.
            exchange: takes and sums the gradients of ``network``.
            global_batch: examples per optimizer step over all replicas.
            accumulate: micro-batches into which a replica cuts its share of them, one after the other.
        """
        super().__init__(name="lockstep")
        self.network = network
        self._strategy = strategy
        self._losses = losses
        self._global_metrics = metrics
        self._exchange = exchange
        self._global_batch = global_batch
        self._accumulate = accumulate
        # Set by this worker's host between steps, summed over all replicas with the gradients: telling costs nothing.
        self.notices = keras.Variable(
            tf.zeros(len(NOTICES)), dtype="float32", trainable=False, aggregation="only_first_replica", name="notices"
        )
        self.built = True
        self._gathered_at = None  # the step at which what is split was last whole

    def call(self, images, training=False):
        return self.network(images, training=training)

    def train_step(self, data):
        """Take one step on (images uint8 [b, h, w, 3], labels int32 [b], sample ids int64 [b])."""
        variables = self.network.trainable_variables
        loss, shares = self._accumulated(data, variables)
        # Which replica's loss is not finite must be known to all, so each reports in a place of its own.
        replicas = self._strategy.replicas
        report = tf.one_hot(self._strategy.replica_id(), replicas, dtype=tf.float32)
        report = tf.concat([tf.where(report > 0, loss, tf.zeros(())), self.notices.value], 0)
        report, halted = self.optimizer.step(shares, variables, report)
        losses, notices = report[:replicas], report[replicas:]
        loss = tf.reduce_sum(losses)
        return {"loss": loss, "loss_by_replica": losses * replicas, "halted": halted, "notices": notices}

    def _accumulated(self, data, variables):
        """The replica's shares of the mean loss and of its gradient, over its micro-batches."""
        count = self._accumulate
        if count == 1:
            return self._exchange.accumulate(1, lambda index: self._gradients(data, variables), variables)
        micro = self._global_batch // (count * self._strategy.replicas)
        data = [tf.reshape(part, [count, micro, *part.shape[1:]]) for part in data]
        return self._exchange.accumulate(
            count, lambda index: self._gradients([part[index] for part in data], variables), variables
        )

    def _gradients(self, data, variables):
        images, labels, sample_ids = data
        step = tf.cast(self.optimizer.iterations.value, tf.int64)
        with step_context.enter(step, sample_ids) as context, tf.GradientTape() as tape:
            logits = self.network(images, training=True)
            losses = self._losses(labels, logits)
            loss = tf.reduce_sum(losses) / self._global_batch
            scaled = self.optimizer.scale_loss(loss)
        self._global_metrics.update(labels, logits, losses, tf.ones_like(losses))
        return loss, self._exchange.gradients(tape, scaled, context.recorded, variables)

    def test_step(self, data):
        """Add one batch (images, labels, weights float32 [b]) to the metrics; weight 0 marks padding."""
        images, labels, weights = data
        logits = self.network(images, training=False)
        losses = self._losses(labels, logits)
        self._global_metrics.update(labels, logits, losses, weights)
        return {"loss": tf.reduce_mean(losses)}

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

    @property
    def metrics(self):
        return self._global_metrics.all

    def get_metrics_result(self):
        """The results over all workers; Keras asks for them once per epoch and once per validation."""
        return self._global_metrics.results()

    def metric_states(self) -> list:
        """The metrics' states so far, of each replica of the run, as a JSON value; all workers must call it."""
        return self._strategy.replica_values(self._metric_variables)

    def examples_here(self) -> int:
        """Examples of the latest validation (or epoch) on this worker."""
        return int(self._global_metrics.examples.result())

    def restore_metric_states(self, states: list) -> None:
        """Take up what ``metric_states`` gave; all workers must call it with the same value."""
        self._strategy.assign_replica_values(self._metric_variables, states)

    @property
    def _metric_variables(self):
        return [variable for metric in self.metrics for variable in metric.variables]

    def _get_metrics_result_or_logs(self, logs):
        # What a step returns is for the progress of the run; the epoch's values come from the metrics.
        return self.get_metrics_result()

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing is left to build, and Keras would draw a batch from the stream to find that out."""
