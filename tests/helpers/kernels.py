"""Where the operations of a train step run: python tests/helpers/kernels.py MODEL PRECISION OPTIMIZER FILE.json

Takes a step of that network on the first GPU, or the CPU where there is none.  Writes every operation of the graphs
that TensorFlow's placer and partitioner have made as "nodes": [{"op", "name", "device", "floating"}], the devices on
which the next batch waits as "batches", and as "grows" for each visible GPU whether its memory is taken as needed.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

# Bring values to the host or take them from there, by their nature; what they carry is computed elsewhere.
CARRIERS = (
    "_Arg",
    "_Retval",
    "_Send",
    "_Recv",
    "_HostSend",
    "_HostRecv",
    "IteratorGetNext",
    "Identity",
    "Const",
    "NoOp",
)


def misplaced(nodes: list[dict], kind: str) -> list[str]:
    """Operations that compute with floating numbers elsewhere than on devices of that kind."""
    return sorted(
        {
            f"{node['op']} {node['name']} on {node['device']}"
            for node in nodes
            if node["floating"] and node["op"] not in CARRIERS and f"device:{kind}:" not in node["device"]
        }
    )


def main(model: str, precision: str, optimizer: str, file: str) -> None:
    import numpy as np
    import tensorflow as tf
    from tensorflow.core.framework import types_pb2
    from tensorflow.python.eager import context

    from distributed.hardware.devices import create_strategy
    from distributed.world import World
    from launch.job.config import TrainConfig
    from launch.job.preparation.batch_plan import create_batch_plan
    from launch.job.preparation.build import build

    strategy = create_strategy("single", World(), cpu_devices=None, threads=2)
    config = TrainConfig(
        model=model, precision=precision, optimizer=optimizer, global_batch_size=8, clip_norm=1.0, weight_decay=1e-4
    )
    plan, size = create_batch_plan(config, examples=80, replicas=1), 227 if model.startswith("alexnet_2012") else 32
    built, _ = build(config, plan, strategy, classes=10, image_size=size)
    images, labels = np.zeros((8, size, size, 3), np.uint8), np.arange(8, dtype=np.int32)
    dataset = tf.data.Dataset.from_tensors((images, labels, np.arange(8))).repeat()
    batches = iter(strategy.distribute(lambda first, stride: dataset))
    built.shard()
    context.enable_run_metadata()
    built.steps(batches, np.full(2, 0.01))
    metadata = context.export_run_metadata()
    floats = {types_pb2.DT_FLOAT, types_pb2.DT_HALF, types_pb2.DT_BFLOAT16}
    graphs = [graph for function in metadata.function_graphs for graph in function.partition_graphs]
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for graph in graphs for function in graph.library.function for node in function.node_def]
    listed = [
        {
            "op": node.op,
            "name": node.name,
            "device": node.device,
            "floating": any(node.attr[name].type in floats for name in ("T", "dtype") if name in node.attr),
        }
        for node in nodes
        if node.device
    ]
    waiting = sorted({part.device for part in next(batches)})
    grows = [tf.config.experimental.get_memory_growth(gpu) for gpu in tf.config.get_visible_devices("GPU")]
    Path(file).write_text(json.dumps({"nodes": listed, "batches": waiting, "grows": grows}))


if __name__ == "__main__":
    main(*sys.argv[1:])
