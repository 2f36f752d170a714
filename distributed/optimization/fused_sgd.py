"""SGD's update in one pass over the weights, by TensorFlow's kernel."""

import tensorflow as tf


class FusedSGD:
    """What is mixed into Keras' SGD, which composes its update of five operations, each a pass over tens of millions of
    weights in AlexNet and VGG."""

    def update_step(self, gradient, variable, learning_rate):
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=learning_rate, delta=gradient)
            return
        velocity = self.momentums[self._get_variable_index(variable)].value
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=learning_rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )
