"""VGG: configurations A, B, D and E.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014, table 1.
Layers bear the names that keras.applications gives them.
"""

import keras

from models.layers import Spec, classifier, image_input, normalized

FILTERS = (64, 128, 256, 512, 512)  # of the five blocks; all convolutions are 3x3, and 2x2 pooling ends a block

# Convolutions per block.
VGG11 = (1, 1, 2, 2, 2)  # configuration A
VGG13 = (2, 2, 2, 2, 2)  # B
VGG16 = (2, 2, 3, 3, 3)  # D
VGG19 = (2, 2, 4, 4, 4)  # E


def build(spec: Spec, convs_per_block: tuple[int, ...], batch_norm: bool = False) -> keras.Model:
    """VGG from a row of the table above, he_uniform; with ``batch_norm`` between each convolution, which then has no
    bias, and its ReLU.

    The paper grew the deep configurations out of a trained A; initial values that keep the signal's variance
    (He et al. 2015) make that detour unnecessary.
    """
    images, x = image_input(spec)
    index = 0
    for block, (filters, convs) in enumerate(zip(FILTERS, convs_per_block, strict=True), start=1):
        for conv in range(1, convs + 1):
            x = keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                activation=None if batch_norm else "relu",
                use_bias=not batch_norm,
                kernel_initializer=spec.kernel_initializer(index),
                name=f"block{block}_conv{conv}",
            )(x)
            if batch_norm:
                x = normalized(x, f"block{block}_bn{conv}")
                x = keras.layers.Activation("relu", name=f"block{block}_relu{conv}")(x)
            index += 1
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return keras.Model(images, classifier(x, spec, ("fc1", "fc2", "predictions"), first_index=index), name=spec.name)
