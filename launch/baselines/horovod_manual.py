"""A training loop written by hand for Keras 3: a step in a tf.function, gradients averaged by Horovod's all-reduce.

python launch/baselines/horovod_manual.py --data cifar10.npz --alone                       # one process, no Horovod
horovodrun -np 2 python launch/baselines/horovod_manual.py --data cifar10.npz              # one all-reduce per tensor
horovodrun -np 2 python launch/baselines/horovod_manual.py --data cifar10.npz --grouped    # one for all tensors

(Keras 3's fit does not work with horovod.keras, which then never calls all-reduce.)
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import horovod.tensorflow as hvd
import keras
import tensorflow as tf

from launch.baselines.client import BenchmarkClient
from launch.baselines.job import build, dataset, read_job


def main():
    switches = (("--alone", {"action": "store_true"}), ("--grouped", {"action": "store_true"}))
    job = read_job(__doc__, *switches, ("--cores", {"type": int, "help": "of this rank"}))
    rank, size = 0, 1
    if not job.alone:
        hvd.init()
        rank, size = hvd.rank(), hvd.size()
        if gpus := tf.config.list_physical_devices("GPU"):
            tf.config.set_visible_devices(gpus[hvd.local_rank()], "GPU")
        # Without it each rank takes all cores of the host and they get into each other's way.
        tf.config.threading.set_intra_op_parallelism_threads(job.cores or max(1, os.cpu_count() // hvd.local_size()))

    model = build(job)
    variables = [variable.value for variable in model.trainable_variables]
    optimizer = keras.optimizers.SGD(job.learning_rate * size, momentum=0.9)
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if not job.alone:
        hvd.broadcast_variables(variables, root_rank=0)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        gradients = tape.gradient(loss, variables)
        if job.grouped:
            gradients = hvd.grouped_allreduce(gradients, op=hvd.Average)
        elif not job.alone:
            gradients = [hvd.allreduce(gradient, op=hvd.Average) for gradient in gradients]
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    client, loss = BenchmarkClient(rank), None
    for epoch in range(job.epochs):
        for images, labels in dataset(job, job.batch_size, rank=rank, size=size):
            client.begin_step(lambda done=loss: done is None or float(done))
            loss = step(images, labels)
        if rank == 0:
            print(f"epoch {epoch + 1}: loss of the last batch {float(loss):.4f}", flush=True)


if __name__ == "__main__":
    main()
