"""Count what the host does in runs of train.py: python tests/helpers/host_work.py FOLDER DATA.npz.

It trains the same network as many calls of 4 steps as of 8 in a process of its own, since a run settles TensorFlow's
threads, and writes {steps per call: counts} to FOLDER/counts.json.
"""

import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from launch.job import environment

CALLS = 6


class Host:
    """Within it, ``counts`` what Python asks of devices: ``reads`` of their values, ``ops`` run one by one, ``assigns``
    among these, and each by its type."""

    def __init__(self):
        self.counts = Counter()

    def __enter__(self):
        from tensorflow.python.framework import op_callbacks, ops

        self.counts.clear()
        # All of numpy(), int(), float(), bool() and indexing ends in this method.
        self._tensor, self._read = ops._EagerTensorBase, ops._EagerTensorBase._numpy
        self._tensor._numpy = lambda tensor: self._count(tensor)
        op_callbacks.add_op_callback(self._note)
        return self

    def __exit__(self, *problem):
        from tensorflow.python.framework import op_callbacks

        op_callbacks.remove_op_callback(self._note)
        self._tensor._numpy = self._read

    def _count(self, tensor):
        self.counts["reads"] += 1
        return self._read(tensor)

    def _note(self, op_type, inputs, attrs, outputs, op_name=None, graph=None):
        name = op_type.decode() if isinstance(op_type, bytes) else op_type
        # It is also called for each operation of a graph that is being traced; and what is no longer needed goes when
        # Python's garbage collector comes to it.
        if graph is None and name != "DestroyResourceOp":
            name = "compiled calls" if name.startswith("__inference_") else name
            self.counts.update(("ops", name, *(["assigns"] if name.startswith("Assign") else [])))


def main(folder: Path, data: str) -> None:
    with environment.loading(quiet=True):
        from jobs import tiny

        from launch.job.config import TrainConfig
        from launch.job.run import train

    counts = {}
    for per_call in (4, 8):
        settings = {"dataset": "npz", "data_dir": data, "global_batch_size": 2, "epochs": 1, "validation_split": 0.0}
        settings |= {"steps_per_epoch": CALLS * per_call, "steps_per_call": per_call}
        with Host() as host:
            train(TrainConfig(**settings, run_dir=str(folder / f"run {per_call}")), model=tiny(0.5, 0))
        counts[per_call] = dict(host.counts)
    (folder / "counts.json").write_text(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
