"""The ways to run, one object each: SingleDevice, Mirrored, Horovod.

Everything that depends on how many workers there are is asked of these objects, so that nothing else needs to know.
A *worker* is a process; a *replica* is one copy of the model on one device; a run has ``replicas`` of them in all.
"""

import contextlib
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from distributed.collectives import BUCKET, Collectives, HorovodCollectives
from distributed.control import Control, MpiControl, start_mpi
from distributed.world import World

AHEAD = 2  # batches that wait on the device: one to be taken next, one under way to it


class SingleDevice:
    """One process, one device; the base of the others, since its answers are those of one replica."""

    name = "single"
    replicas = 1
    shares_memory = True  # all replicas are in this process: nothing travels between processes
    exchanges_in_loops = True  # whether what replicas exchange in a step may stand in a loop of the graph

    def __init__(self, world: World, device: str | None = None):
        """
        Args:
            world: this process's place.
            device: where it computes, such as ``/device:GPU:0``, if that is not where batches are made: they are copied
                there ahead.
        """
        self.world, self.device = world, device
        self.collectives = self._create_collectives()
        self.control = self._create_control()

    def _create_collectives(self) -> Collectives:
        return Collectives(self.world)

    def _create_control(self) -> Control:
        return Control(self.collectives)

    @property
    def is_chief(self) -> bool:
        """Whether this worker prints, logs and saves for all."""
        return self.world.is_chief

    def scope(self):
        """The context in which the model and the optimizer are built."""
        return contextlib.nullcontext()

    def run(self, step: Callable, batch, *arguments):
        """Let each replica of this worker take a step on its part of what ``distribute`` gave, inside a graph; what
        comes back is the first one's tensor, or None.  Further ``arguments`` are the same for all."""
        return step(batch, *arguments)

    def replica_id(self):
        """This replica's number in the run, int32, inside a train or test step."""
        return tf.constant(0)

    def sum_replicas(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Sum each tensor over all replicas of the run, inside a train step, in one fused exchange."""
        return list(tensors)

    def gather_replicas(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Join each tensor [b, ...] of all replicas along its first axis, in their order, inside a train step."""
        return list(tensors)

    def scatter_sum_replicas(self, tensor: tf.Tensor) -> tf.Tensor:
        """Sum a tensor [N b, ...] over the N replicas, inside a train step, and give each its own [b, ...] of the sum;
        only where the replicas do not share memory."""
        return self.collectives.scatter_sum(tensor)

    def sum_workers(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Sum float64 arrays over the workers, outside of any step, in one exchange."""
        return self.collectives.sum_arrays(arrays)

    @property
    def share(self) -> tuple[int, int]:
        """``(first, stride)``: this worker reads the batches number first, first + stride, ... of the run's one stream
        of per-replica batches, in which batch ``e`` belongs to replica ``e % replicas``."""
        return 0, 1

    def distribute(self, make_dataset: Callable[[int, int], tf.data.Dataset]):
        """Build this worker's input; ``make_dataset(first, stride)`` gives its share of the stream, made by the CPU.
        What waits for a step waits on the device that takes it."""
        batches = make_dataset(*self.share)
        return batches if self.device is None else _copied_ahead(batches, self.device)

    def replica_digests(self, variables: Sequence) -> list[list[int]]:
        """For each replica of the run, a 32-bit checksum of each of these Keras variables."""
        return [[_checksum(variable.value) for variable in variables]]

    def local_values(self, variables: Sequence) -> list:
        """For each replica of this worker, the values of these Keras variables as a JSON value:
        ``[replica][variable]``."""
        return [[np.asarray(variable).tolist() for variable in variables]]

    def replica_values(self, variables: Sequence) -> list:
        """The same for each replica of the run; all workers must call it."""
        return self.local_values(variables)

    def assign_replica_values(self, variables: Sequence, values: list) -> None:
        """Give each replica its own of what ``replica_values`` gave; where the run had another number of replicas, the
        first one gets the sums and the others 0."""
        if len(values) != self.replicas:
            sums = [np.sum([np.asarray(value) for value in column], axis=0) for column in zip(*values, strict=True)]
            values = [sums] + [[np.zeros_like(total) for total in sums]] * (self.replicas - 1)
        self._assign_local(variables, values)

    def _assign_local(self, variables, values):
        for variable, value in zip(variables, values[self.world.rank], strict=True):
            variable.assign(np.asarray(value))

    def broadcast(self, variables: Sequence) -> None:
        """Give every replica the chief's values of these Keras variables."""
        self.collectives.broadcast_variables([variable.value for variable in variables])


class Mirrored(SingleDevice):
    """One process, several devices of one machine, by ``tf.distribute.MirroredStrategy``."""

    name = "mirrored"
    exchanges_in_loops = False  # replicas meet in the step's own graph alone

    def __init__(self, world: World, devices: Sequence[str]):
        super().__init__(world)
        self.replicas = len(devices)
        # NCCL where there are GPUs; the copy-based reduction sums in a fixed order on CPUs.
        on_cpu = any("CPU" in device for device in devices)
        operations = tf.distribute.ReductionToOneDevice() if on_cpu else None
        self._strategy = tf.distribute.MirroredStrategy(list(devices), cross_device_ops=operations)

    def scope(self):
        return self._strategy.scope()

    def run(self, step, batch, *arguments):
        result = self._strategy.run(step, (batch, *arguments))
        return None if result is None else self._strategy.experimental_local_results(result)[0]

    def replica_id(self):
        return tf.distribute.get_replica_context().replica_id_in_sync_group

    def sum_replicas(self, tensors):
        # In packs, the last tensors first, as ``Collectives.sum_tensors``; where NCCL sums, CPUs know no packs.
        packs = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=BUCKET)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, list(tensors), options=packs)

    def gather_replicas(self, tensors):
        if not tensors:
            return []
        joined = tf.distribute.get_replica_context().all_gather(list(tensors), axis=0)
        for whole, tensor in zip(joined, tensors, strict=True):
            whole.set_shape([tensor.shape[0] and tensor.shape[0] * self.replicas, *tensor.shape[1:]])
        return joined

    def distribute(self, make_dataset):
        # The stream is dealt to the replicas batch by batch, in order: batch e goes to replica e % replicas.
        return self._strategy.distribute_datasets_from_function(lambda _: make_dataset(*self.share))

    def replica_digests(self, variables):
        by_variable = [self._strategy.experimental_local_results(variable.value) for variable in variables]
        return [[_checksum(copy) for copy in copies] for copies in zip(*by_variable, strict=True)]

    def local_values(self, variables):
        copies = [self._strategy.experimental_local_results(variable.value) for variable in variables]
        return [[copy.numpy().tolist() for copy in column] for column in zip(*copies, strict=True)]

    def _assign_local(self, variables, values):
        for variable, *column in zip(variables, *values, strict=True):
            copies = self._strategy.experimental_local_results(variable.value)
            for copy, value in zip(copies, column, strict=True):
                copy.assign(np.asarray(value, copy.dtype.as_numpy_dtype))

    def broadcast(self, variables):
        """Nothing to do: mirrored variables begin with equal values."""


class Horovod(SingleDevice):
    """Several processes, one device each, by Horovod."""

    name = "horovod"

    def __init__(self, world: World, device: str | None = None):
        super().__init__(world, device)
        self.replicas = world.size
        self.shares_memory = world.size == 1

    def _create_collectives(self):
        # Alone, nothing needs to be exchanged, and a process without a launcher must not start MPI.
        if self.world.size == 1:
            return Collectives(self.world)
        return HorovodCollectives(self.world, start_mpi if self.world.uses_mpi else None)

    def _create_control(self):
        several = self.world.size > 1
        return MpiControl(self.collectives) if several and self.world.uses_mpi else Control(self.collectives)

    def replica_id(self):
        return tf.constant(self.world.rank)

    def sum_replicas(self, tensors):
        return self.collectives.sum_tensors(tensors)

    def gather_replicas(self, tensors):
        return self.collectives.gather_tensors(tensors)

    def replica_digests(self, variables):
        (mine,) = super().replica_digests(variables)
        return self.control.gather(mine)

    def replica_values(self, variables):
        (mine,) = self.local_values(variables)
        return self.control.gather(mine)

    @property
    def share(self):
        return self.world.rank, self.world.size


Strategy = SingleDevice


def _copied_ahead(batches: tf.data.Dataset, device: str) -> tf.data.Dataset:
    options = tf.data.Options()
    # Those of ``batches`` hold up to the copy; what is beyond would be tuned again, see data/pipeline.py.
    options.autotune.enabled = False
    return batches.apply(tf.data.experimental.prefetch_to_device(device, AHEAD)).with_options(options)


def _checksum(variable: tf.Variable) -> int:
    return zlib.crc32(np.ascontiguousarray(variable))
