"""One optimizer step done right: reduce, unscale, check, clip, decay, apply - in this order, on every strategy.

Keras' own order is another one under ``MirroredStrategy`` (it clips each replica's gradient before the sum, and asks
only replica 0 whether the gradient is finite), and under Horovod it has none.  Here ``apply`` is overridden:

1. *reduce*: sum the gradients over all replicas; each is already divided by the global batch, so that the sum is the
   mean;
2. *unscale*: divide by the loss scale (float16 only);
3. *check*: all replicas see the same sums, hence agree without a further message on whether they are finite;
4. *clip* by the global norm of the reduced gradient (Pascanu et al. 2013), penalties of the weights included, as in
   Keras;
5. *decay* (decoupled, as Keras does: ``w -= learning rate x decay x w``) and *apply*, both by Keras.

A gradient that is not finite is never applied.  With float16 it halves the loss scale (Micikevicius et al. 2018,
section 3.2).
Otherwise, and whenever a replica's *loss* is not finite, the optimizer halts: no later step changes a weight either, so
that the weights stay those of the last good step until the host has noticed.
"""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from distributed.gradients.aggregation import global_norm
from distributed.gradients.matmul import times
from distributed.gradients.reduction import Factors, Owned, Rows
from distributed.gradients.tensor_parallel import SplitPair
from distributed.layers.batch_norm import MovingStatistics
from distributed.optimization.fused_sgd import FusedSGD
from distributed.optimization.layer_rates import LayerRates
from distributed.optimization.regularization import Penalties
from distributed.step_times import stamp

# Keras' and PyTorch's habit: begin high, double after 2000 good steps, halve on overflow.
INITIAL_LOSS_SCALE = 2.0**15
GROWTH_INTERVAL = 2000


class LockstepOptimizer(LayerRates):
    """What ``synchronize`` mixes into a Keras optimizer."""

    def prepare(
        self,
        sum_replicas: Callable[[list, tf.Tensor | float], list],
        clip_norm: float | None,
        scaled: bool,
        moving: MovingStatistics | None,
        penalties: Penalties | None,
        rate_factors: Mapping[str, float],
    ) -> None:
        """Say how to reduce and clip; called once, in the strategy's scope, before ``build``."""
        self._sum_replicas = sum_replicas
        self._clip_norm = clip_norm
        self._scaled = scaled
        self._moving = moving
        self._penalties = penalties
        self._rate_factors = rate_factors
        self._split = self._of_parts = None
        make = self.add_variable
        # Loss scale and the good steps since it last changed; halted is 1 from the first bad step on.
        self.loss_scale = make(
            (), keras.initializers.Constant(INITIAL_LOSS_SCALE if scaled else 1.0), "float32", "none", name="loss_scale"
        )
        self.good_steps = make((), "zeros", "int64", "none", name="good_steps")
        self.halted = make((), "zeros", "int32", "none", name="halted")

    def adopt(self, split: SplitPair, of_parts: keras.optimizers.Optimizer) -> None:
        """Let ``of_parts``, made with the same settings, keep the state of what this worker owns of ``split``; called
        once, after ``build``."""
        of_parts.build(split.parts)
        split.add_slots([slot for slot in of_parts.variables if len(slot.shape)], self.variables)
        of_parts._iterations = self._iterations  # bias corrections count the run's steps
        self._split, self._of_parts = split, of_parts

    def begin_scaling(self) -> None:
        """Set the loss scale to where a fresh run begins."""
        self.loss_scale.assign(INITIAL_LOSS_SCALE if self._scaled else 1.0)
        self.good_steps.assign(0)

    def scale_loss(self, loss):
        return loss * self.loss_scale if self._scaled else loss

    def step(
        self,
        gradients: Sequence,
        variables: Sequence,
        report: tf.Tensor,
        rows: Rows | None = None,
        unconnected: Sequence = (),
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Take one step; call it in a replica's context.

        Args:
            gradients: this replica's share of the mean gradient over the global batch, times the loss scale: tensors,
                ``Factors`` where a gradient travels not multiplied out, ``Owned`` where it need not travel.
            variables: the Keras variables they belong to.
            report: float32 [k]: what the step tells the host, summed over the replicas together with the gradients.
                Any value that is not finite halts the optimizer before this step is applied.
            rows: what the moving statistics follow, where there are any; they move if the step is taken.
            unconnected: those of the variables that stay as they are, whatever the weight decay.

        Returns:
            ``report`` summed over all replicas, whether the optimizer has halted (int32, 0 or 1), and when the sums
            were there, see ``step_times.stamp``.
        """
        self._unconnected = {variable.path for variable in unconnected}
        # What a worker owns is summed already; the norm, which is exchanged now, is that of the whole gradient.
        gradients = [
            self._penalized(*pair) if isinstance(pair[0], Owned) else pair[0]
            for pair in zip(gradients, variables, strict=True)
        ]
        shares = [*gradients, *([] if rows is None else [rows]), report]
        summed, shares = stamp(self._sum_replicas(shares, self.loss_scale.value if self._scaled else 1.0))
        *gradients, report = shares
        moved = [] if rows is None else self._moving.moved(gradients.pop().values)
        if self._clip_norm is not None or self._penalties:
            gradients = [_multiplied(gradient) for gradient in gradients]
            gradients = [
                pair[0] if isinstance(pair[0], Owned) else self._penalized(*pair)
                for pair in zip(gradients, variables, strict=True)
            ]
        # Factors are finite if their norms are: there is no need to read tens of millions of products for that.
        norm = global_norm([g.bound() if isinstance(g, Factors | Owned) else g for g in gradients])
        factor = 1.0
        if self._scaled:
            norm, factor = norm / self.loss_scale, 1.0 / self.loss_scale
        if self._clip_norm is not None:
            factor *= self._clip_norm / tf.maximum(norm, self._clip_norm)
        gradients = [_multiplied(gradient, factor) for gradient in gradients]
        loss_finite = tf.reduce_all(tf.math.is_finite(report))
        gradient_finite = tf.math.is_finite(norm)
        # A variable may be updated under a condition only outside of the replicas (see Keras' LossScaleOptimizer).
        halted = tf.__internal__.distribute.interim.maybe_merge_call(
            self._apply_if_finite,
            self._distribution_strategy,
            gradients,
            list(variables),
            moved,
            loss_finite,
            gradient_finite,
        )
        return report, halted, summed

    def _penalized(self, gradient: tf.Tensor | Owned, variable: keras.Variable) -> tf.Tensor | Owned:
        """The gradient of the loss with the penalty of the variable, both times the loss scale."""
        part = self._split.part_of(variable) if isinstance(gradient, Owned) else None
        more = self._penalties.gradient(variable, part) if self._penalties else None
        if more is None:
            return gradient
        if part is None:
            # Also where that is 1: of a bare sum of sums TensorFlow takes the terms in another order on each device.
            return gradient + more * self.loss_scale.value
        more = gradient.gradient + more
        return Owned(more, 2 * tf.nn.l2_loss(more))

    def _apply_if_finite(self, distribution, gradients, variables, moved, loss_finite, gradient_finite):
        # All replicas hold the same sums; the first one's word counts for all.
        loss_finite, gradient_finite = (
            distribution.experimental_local_results(value)[0] for value in (loss_finite, gradient_finite)
        )

        def apply_in_replica(*gradients):
            pairs = list(zip(gradients, variables, strict=True))
            if self._of_parts is not None:
                self._apply_to_parts([pair for pair in pairs if isinstance(pair[0], Owned)])
                pairs = [pair for pair in pairs if not isinstance(pair[0], Owned)]
            self.apply(*map(list, zip(*pairs, strict=True)))

        def good():
            if tf.distribute.in_cross_replica_context():
                distribution.extended.call_for_each_replica(apply_in_replica, args=gradients)
            else:
                apply_in_replica(*gradients)
            for variable, value in zip(self._moving.variables if moved else (), moved, strict=True):
                distribution.extended.update(
                    variable.value, lambda stored, new: stored.assign(new), args=(value,), group=False
                )
            if self._scaled:
                grown = self.good_steps + 1 >= GROWTH_INTERVAL
                self.loss_scale.assign(tf.where(grown, self.loss_scale * 2.0, self.loss_scale))
                self.good_steps.assign(tf.where(grown, tf.zeros((), tf.int64), self.good_steps + 1))
            return tf.constant(0)

        def bad():
            # Below 1 a smaller scale cannot help any more: the gradient itself is not finite.
            overflow = tf.logical_and(loss_finite, self.loss_scale >= 1.0) if self._scaled else tf.constant(False)
            halted = tf.where(overflow, self.halted.value, 1)
            self.loss_scale.assign(tf.where(overflow, self.loss_scale * 0.5, self.loss_scale))
            self.good_steps.assign(tf.zeros((), tf.int64))
            self.halted.assign(halted)
            return halted

        fine = tf.logical_and(tf.logical_and(loss_finite, gradient_finite), tf.equal(self.halted, 0))
        # On a GPU the host reads this condition in every step.  A select instead would read and write all weights and
        # slots once more: of SGD with momentum on 20 M weights, on two CPU cores, 770 ms where the branch takes 53 ms.
        return tf.cond(fine, good, bad)

    def _apply_to_parts(self, pairs):
        # Before ``apply``, which counts the step.
        parts = [self._split.part_of(variable) for _, variable in pairs]
        self._apply_weight_decay(
            [part for part, pair in zip(parts, pairs, strict=True) if pair[1].path not in self._unconnected]
        )
        for (gradient, variable), part in zip(pairs, parts, strict=True):
            rate = self.learning_rate * self._rate_factors.get(variable.path, 1.0)
            self._of_parts.update_step(gradient.gradient, part, rate)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        # Keras would sum over the replicas here, after clipping; the sum has been taken.
        return grads_and_vars


def _multiplied(gradient, scale=1.0) -> tf.Tensor | Owned:
    """The gradient, multiplied out, times ``scale``; factors are scaled before they grow to a kernel's size."""
    return gradient.multiplied(scale) if isinstance(gradient, Factors | Owned) else times(gradient, scale)


def synchronize(
    optimizer_class: type,
    settings: dict,
    variables: Sequence,
    *,
    sum_replicas,
    clip_norm: float | None,
    scaled: bool,
    split: SplitPair | None = None,
    moving: MovingStatistics | None = None,
    penalties: Penalties | None = None,
    undecayed: Sequence = (),
    rate_factors: Mapping[str, float] | None = None,
):
    """Build a Keras optimizer whose steps are taken by all replicas together.

    The class keeps its Keras name and module, so that what is saved names a plain optimizer.

    Args:
        optimizer_class: a class of ``keras.optimizers``.
        settings: its constructor's arguments; clipping is not among them.
        variables: what it is to train.
        sum_replicas: sums a list of tensors over all replicas, inside a step; it is told the loss scale, too.
        clip_norm: largest global norm of the reduced gradient, or None.
        scaled: whether the loss is scaled (float16).
        split: those of the variables that are divided between the workers.
        moving: statistics that follow the steps; see ``layers/batch_norm.py``.
        penalties: of the variables; see ``regularization.py``.
        undecayed: those of the variables that weight decay leaves alone.
        rate_factors: by variable's path what its learning rate is multiplied by; 1 for one that is missing.
    """
    names = {"__module__": optimizer_class.__module__, "__qualname__": optimizer_class.__qualname__}
    fused = (FusedSGD,) if optimizer_class is keras.optimizers.SGD else ()
    optimizer = type(optimizer_class.__name__, (LockstepOptimizer, *fused, optimizer_class), names)(**settings)
    optimizer.prepare(sum_replicas, clip_norm, scaled, moving, penalties, rate_factors or {})
    parts = [] if split is None else [part for part in map(split.part_of, undecayed) if part is not None]
    optimizer.exclude_from_weight_decay([*undecayed, *parts])
    optimizer.build(variables)
    if split is not None:
        optimizer.adopt(split, type(optimizer_class.__name__, (*fused, optimizer_class), names)(**settings))
    return optimizer
