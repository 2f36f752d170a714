"""A network so small that a step costs little but what the host does for it: 6,266 weights for 10 classes of 32x32."""


def network(classes: int, image_size: int):
    """uint8 pixels [b, s, s, 3] -> logits float32 [b, classes]: two convolutions and two dense layers."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((image_size, image_size, 3)),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(24, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(40, activation="relu"),
            layers.Dense(classes, dtype="float32"),
        ]
    )
