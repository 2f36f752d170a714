"""ResNet for 32x32 images, such as ResNet-20 and ResNet-56.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", 2015, section 4.2: a 3x3 convolution with 16
filters, three stages of n blocks with 16, 32 and 64 filters, global average pooling and one dense layer, 6n + 2 layers
with weights.  A block is two 3x3 convolutions, each followed by batch normalisation, added to its input; ReLU follows
the first normalisation and the sum.  The second and third stage begin with stride 2.

Shortcuts are those of option A, without weights: where a stage begins, every second pixel of the block's input, and
zeros for the channels that it lacks.  It departs from the paper in the initial values, he_uniform instead of normal of
the same variance, and in the pixels, scaled to [-1, 1] instead of freed from their mean.
"""

import keras

from models.layers import Spec, image_input, logits, normalized

FILTERS = (16, 32, 64)  # of the three stages


def build(spec: Spec, blocks: int) -> keras.Model:
    """The network of ``blocks`` blocks per stage, which has 6 x blocks + 2 layers with weights."""
    images, x = image_input(spec)
    x = _conv(x, spec, 0, FILTERS[0], 1, "conv1")
    x = keras.layers.Activation("relu", name="conv1_relu")(x)
    index = 1
    for stage, filters in enumerate(FILTERS, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _block(x, spec, index, filters, stride, f"stage{stage}_block{block}")
            index += 2
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if spec.dropout:
        x = keras.layers.Dropout(spec.dropout, seed=spec.dropout_seed(index), name="dropout")(x)
    return keras.Model(images, logits(x, spec, index, "fc"), name=spec.name)


def _block(x: keras.KerasTensor, spec: Spec, index: int, filters: int, stride: int, name: str) -> keras.KerasTensor:
    residual = _conv(x, spec, index, filters, stride, f"{name}_conv1")
    residual = keras.layers.Activation("relu", name=f"{name}_relu1")(residual)
    residual = _conv(residual, spec, index + 1, filters, 1, f"{name}_conv2")
    if stride > 1:
        x = keras.layers.AveragePooling2D(1, strides=stride, padding="same", name=f"{name}_subsample")(x)
        # Read as channels first, the last axis, which is padded, is that of the channels.
        padding = ((0, 0), (0, filters - x.shape[-1]))
        x = keras.layers.ZeroPadding2D(padding, data_format="channels_first", name=f"{name}_zeros")(x)
    x = keras.layers.Add(name=f"{name}_add")([x, residual])
    return keras.layers.Activation("relu", name=f"{name}_relu2")(x)


def _conv(x: keras.KerasTensor, spec: Spec, index: int, filters: int, stride: int, name: str) -> keras.KerasTensor:
    kernel = spec.kernel_initializer(index)
    x = keras.layers.Conv2D(
        filters, 3, strides=stride, padding="same", use_bias=False, kernel_initializer=kernel, name=name
    )(x)
    return normalized(x, f"{name}_bn")
