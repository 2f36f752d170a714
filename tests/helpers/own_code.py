"""A user's own network, data and callback, in a file outside of the repository, and a script that trains with them."""

import textwrap

MINE = """
    import json, os
    import keras
    import numpy as np

    def network(classes, image_size):
        layers = keras.layers
        return keras.Sequential([
            keras.Input((image_size, image_size, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, activation="relu", kernel_initializer=keras.initializers.HeNormal(1)),
            layers.SpatialDropout2D(0.0),
            layers.MaxPooling2D(),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(32, activation="relu", kernel_initializer=keras.initializers.HeNormal(2)),
            layers.Dropout(0.5),
            layers.Dense(classes, kernel_initializer=keras.initializers.HeNormal(3)),
        ])

    def examples():
        random = np.random.default_rng(0)
        y = np.arange(203) % 5
        x = random.integers(0, 120, (203, 12, 12, 3))
        x[np.arange(203), y * 2] += 120
        return (x.astype(np.uint8), y, list("abcde")), (x[:51].astype(np.uint8), y[:51])

    class Notes(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.events, self.steps = [], 0

        def on_train_begin(self, logs=None):
            self.events.append(["begin", os.environ.get("HOROVOD_DISABLE_GROUP_FUSION")])

        def on_epoch_begin(self, epoch, logs=None):
            self.next = 0

        def on_train_batch_begin(self, batch, logs=None):
            assert batch == self.next

        def on_train_batch_end(self, batch, logs=None):
            self.steps += batch + 1 - self.next
            self.next = batch + 1
            assert logs["loss"] > 0

        def on_epoch_end(self, epoch, logs=None):
            self.events.append([epoch, self.steps, logs["loss"], logs["val_accuracy"], self.model.count_params()])

        def on_train_end(self, logs=None):
            self.events.append("end")
            rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
            with open(os.path.join(os.environ["NOTES"], f"notes-{rank}.json"), "w") as file:
                json.dump(self.events, file)

    def callbacks():
        return [Notes()]
"""
SCRIPT = """
    import os, sys
    from launch.job.config import TrainConfig
    from launch.job.run import train
    import mine

    settings = dict(epochs=2, global_batch_size=24, micro_batch_size=2, deterministic=True, learning_rate=0.02)
    result = train(
        TrainConfig(**settings, run_dir=sys.argv[1]), model=mine.network, data=mine.examples, callbacks=mine.callbacks()
    )
    assert result.model.layers[-1].units == 5 and str(result.run_dir) == sys.argv[1]
    rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
    result.model.save(os.path.join(os.environ["NOTES"], f"model-{rank}.keras"))
    with open(os.path.join(os.environ["NOTES"], f"weights-{rank}"), "w") as file:
        file.write(result.summary["weights_sha256"])
"""
FLAGS = "--epochs 2 --global-batch-size 24 --micro-batch-size 2 --deterministic --learning-rate 0.02"


def project(tmp_path_factory):
    """A folder with the user's file and a script that uses it; a fixture of the test files."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "mine.py").write_text(textwrap.dedent(MINE))
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    return folder


def own(project):
    """The flags that name what is in the folder's file."""
    mine = project / "mine.py"
    return ["--model", f"{mine}:network", "--dataset", f"{mine}:examples", "--callbacks", f"{mine}:callbacks"]
