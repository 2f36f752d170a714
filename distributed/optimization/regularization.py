"""What keeps weights small: which of them weight decay leaves alone, and penalties of the loss.

A penalty hangs on weights alone, and these are the same on all replicas.  So no replica takes its gradient along with
that of its examples, which would count it once per replica: the optimizer adds it to the sum.
"""

import functools
from collections.abc import Sequence

import keras
import tensorflow as tf

# Biases, and the scales and offsets of normalisation: in attention, or by several axes, they have more than one axis.
_SPARED = {"bias", "gamma", "beta"}
# Sums over a kernel's numbers one by one, so that parts of it have parts of the penalty.
_BY_NUMBERS = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


def biases_and_scales(variables: Sequence[keras.Variable]) -> list[keras.Variable]:
    """Those of the variables that are biases or parameters of a normalisation: they have one axis or none, or are named
    so.  Decay would pull them to 0 without making anything simpler (He et al. 2019, section 3.1)."""
    return [variable for variable in variables if len(variable.shape) < 2 or variable.name in _SPARED]


class Penalties:
    """The penalties of a network's weights: the same on all its kernels, and what its layers ask for themselves.

    False where there are none.
    """

    def __init__(self, variables: Sequence[keras.Variable], l1: float = 0.0, l2: float = 0.0):
        """
        Args:
            variables: those that are trained; each may have a regularizer of its own, as ``kernel_regularizer`` sets.
            l1, l2: factors of the sum of the absolute values and of the squares of every kernel, as
                ``keras.regularizers.L1L2`` takes them.
        """
        common = keras.regularizers.L1L2(l1, l2)
        self._of = {}
        for variable in variables:
            own = [variable.regularizer] if variable.regularizer else []
            kernel = [common] if (l1 or l2) and variable.name.endswith("kernel") else []
            if own or kernel:
                self._of[id(variable)] = variable, [*own, *kernel]

    def __bool__(self) -> bool:
        return bool(self._of)

    def __contains__(self, variable: keras.Variable) -> bool:
        return id(variable) in self._of

    @property
    def divisible(self) -> bool:
        """Whether the penalty of a part of a variable is a part of its penalty."""
        return all(type(one) in _BY_NUMBERS for _, regularizers in self._of.values() for one in regularizers)

    def gradient(self, variable: keras.Variable, part: keras.Variable | None = None) -> tf.Tensor | None:
        """The gradient of a variable's penalty, or of that of a part of it; None where it has none."""
        if variable not in self:
            return None
        value = tf.convert_to_tensor((variable if part is None else part).value)
        with tf.GradientTape() as tape:
            tape.watch(value)
            penalty = functools.reduce(tf.add, [regularizer(value) for regularizer in self._of[id(variable)][1]])
        return tape.gradient(penalty, value)

    def value(self) -> float:
        """The sum of all penalties, outside of any step."""
        found = sum(float(regularizer(variable)) for variable, several in self._of.values() for regularizer in several)
        return float(str(tf.constant(found).numpy()))
