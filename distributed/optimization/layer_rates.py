"""Layers that learn at their own parts of the rate (Howard & Ruder 2018, section 3.2), by update and by decay alike."""

from collections.abc import Mapping, Set

import tensorflow as tf


class LayerRates:
    """What is mixed into a Keras optimizer."""

    # By variable's path what its learning rate is multiplied by; 1 for one that is missing.
    _rate_factors: Mapping[str, float]
    # Paths of those that the loss does not depend on: as in Keras, they do not decay either.
    _unconnected: Set[str] = frozenset()

    def update_step(self, gradient, variable, learning_rate):
        """One variable's step, at its own part of the rate."""
        if self._rate_factors:
            # Under MirroredStrategy it is a bare tf.Variable, without the path.
            path = self._trainable_variables[self._get_variable_index(variable)].path
            learning_rate = learning_rate * self._rate_factors.get(path, 1.0)
        super().update_step(gradient, variable, learning_rate)

    def _apply_weight_decay(self, variables):
        if not self.weight_decay:
            return
        # As Keras does, but with the two scalars multiplied first: one pass over all weights less.
        decay = self.weight_decay * self.learning_rate

        def apply(distribution, variables):
            for variable in variables:
                if self._use_weight_decay(variable) and variable.path not in self._unconnected:
                    own = decay * self._rate_factors.get(variable.path, 1.0) if self._rate_factors else decay
                    distribution.extended.update(
                        variable.value, lambda weights, own=own: weights.assign_sub(weights * own), group=False
                    )

        tf.__internal__.distribute.interim.maybe_merge_call(apply, self._distribution_strategy, variables)
