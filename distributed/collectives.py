"""What tensors and arrays the workers exchange.  The only file that talks to Horovod.

Only Horovod's core operations are used: they work inside Keras 3's ``fit``, whereas ``horovod.keras`` on Keras 3
never calls all-reduce.  Horovod's operations are named, and the workers must name them alike; the names here follow
from the order of calls, which is the same on every worker.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np

from distributed.health.heartbeat import waiting
from distributed.world import World, WorldError

# Bytes summed in one exchange: enough that its latency does not count, few enough that the first one leaves early.
BUCKET = 4 << 20
_in_order = False  # whether Horovod was told, as it was started, to join only what is summed together


class Collectives:
    """Collectives of a run of one process: everything is already everywhere."""

    def __init__(self, world: World):
        self.world = world

    def sum_tensors(self, tensors: Sequence) -> list:
        """Sum each tensor over the workers, in the graph; shapes and dtypes stay.

        They travel in a few fused exchanges, the last tensors first: gradients that are listed by layer become known in
        that order, so that the last layers' sums are on their way while the first layers are still being computed.
        """
        return list(tensors)

    def gather_tensors(self, tensors: Sequence) -> list:
        """Join each tensor [b, ...] of all workers along its first axis, by rank, in the graph; all have one b."""
        return list(tensors)

    def scatter_sum(self, tensor):
        """Sum a tensor [N b, ...] over the N workers, in the graph; by rank each gets its own [b, ...] of the sum."""
        return tensor

    def sum_arrays(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Sum float64 arrays over the workers, eagerly, in one exchange."""
        return [np.asarray(array, np.float64) for array in arrays]

    def broadcast_variables(self, variables: Sequence) -> None:
        """Give every worker the chief's values of these ``tf.Variable``."""

    def broadcast_bytes(self, payload: bytes | None) -> bytes:
        """Return the chief's bytes on every worker; the others' argument is ignored."""
        return payload

    def gather_bytes(self, payload: bytes) -> list[bytes]:
        """Return every worker's bytes, by rank, on every worker."""
        return [payload]


class HorovodCollectives(Collectives):
    """The same over Horovod; creating it starts Horovod."""

    def __init__(self, world: World, start_mpi: Callable[[], object] | None = None):
        """Args: ``start_mpi`` starts MPI, where the launcher began an MPI job: once Horovod has loaded its library, and
        before Horovod itself would start it."""
        super().__init__(world)
        import horovod.tensorflow as horovod

        self._horovod = horovod
        global _in_order
        in_order = os.environ.get("HOROVOD_DISABLE_GROUP_FUSION") == "1"
        if not horovod.is_initialized():
            _in_order = in_order
        elif in_order and not _in_order and world.size > 2:
            raise WorldError(
                "Horovod was started in this process by what was not deterministic, and may join sums in any order; "
                "train the deterministic run first, or in a process of its own"
            )
        if start_mpi is not None:
            start_mpi()
        with waiting():
            horovod.init()
        if (horovod.rank(), horovod.size()) != (world.rank, world.size):
            raise WorldError(
                f"the launcher says rank {world.rank} of {world.size}, but Horovod found rank {horovod.rank()} of "
                f"{horovod.size()}; "
                "start with the mpirun or srun --mpi=... that belongs to the MPI Horovod was built with"
            )

    def sum_tensors(self, tensors):
        def reduce(group, name):
            sums = []
            for bucket in _buckets(group):
                sums = [*self._horovod.grouped_allreduce(bucket, op=self._horovod.Sum, name=f"sum_{name}"), *sums]
            return sums

        return _by_dtype(tensors, reduce)

    def gather_tensors(self, tensors):
        import tensorflow as tf

        def gather(group, name):
            # Horovod's allgather does not know bfloat16, and need not: nothing is computed on the way.
            known = [tf.bitcast(tensor, tf.uint16) if name == "bfloat16" else tensor for tensor in group]
            joined = self._horovod.grouped_allgather(known, name=f"gather_{name}")
            for whole, tensor in zip(joined, group, strict=True):
                whole.set_shape([tensor.shape[0] and tensor.shape[0] * self.world.size, *tensor.shape[1:]])
            return [tf.bitcast(whole, group[0].dtype) for whole in joined]

        return _by_dtype(tensors, gather)

    def scatter_sum(self, tensor):
        mine = self._horovod.reducescatter(tensor, op=self._horovod.Sum, name="scatter_sum")
        mine.set_shape([tensor.shape[0] // self.world.size, *tensor.shape[1:]])
        return mine

    @waiting()
    def sum_arrays(self, arrays):
        arrays = [np.asarray(array, np.float64) for array in arrays]
        flat = np.concatenate([array.ravel() for array in arrays])
        total = self._horovod.allreduce(flat, op=self._horovod.Sum, name="sum_arrays").numpy()
        ends = np.cumsum([array.size for array in arrays])
        return [part.reshape(array.shape) for part, array in zip(np.split(total, ends[:-1]), arrays, strict=True)]

    @waiting()
    def broadcast_variables(self, variables):
        self._horovod.broadcast_variables(list(variables), root_rank=0)

    # On the CPU: by them it is settled whether the GPUs can be used.
    @waiting()
    def broadcast_bytes(self, payload):
        import tensorflow as tf

        with tf.device("CPU:0"):
            return self._horovod.broadcast_object(payload if self.world.is_chief else None, root_rank=0, name="bytes")

    @waiting()
    def gather_bytes(self, payload):
        import tensorflow as tf

        with tf.device("CPU:0"):
            return self._horovod.allgather_object(payload, name="gathered_bytes")


def horovod_build() -> dict:
    """Load Horovod; its ``version``, whether ``mpi`` and ``gloo`` are built in, and of ``nccl`` the version as a whole
    number, 22105 for 2.21.5, or 0 without it."""
    import horovod
    import horovod.tensorflow as built

    return {
        "version": horovod.__version__,
        "mpi": built.mpi_built(),
        "gloo": built.gloo_built(),
        "nccl": int(built.nccl_built()),
    }


def _buckets(tensors: Sequence) -> list[list]:
    """Cut a list, from its end, in runs of about ``BUCKET`` bytes; the last run holds the first tensors."""
    buckets, free = [], 0
    for tensor in reversed(tensors):
        if free <= 0:
            buckets.append([])
            free = BUCKET
        buckets[-1].insert(0, tensor)
        free -= tensor.dtype.size * tensor.shape.num_elements()
    return buckets


def _by_dtype(tensors: Sequence, collective: Callable) -> list:
    """Call ``collective(group, dtype's name)`` for the tensors of each dtype: Horovod's groups have one dtype each."""
    results = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        places = [place for place, tensor in enumerate(tensors) if tensor.dtype == dtype]
        results |= zip(places, collective([tensors[place] for place in places], dtype.name), strict=True)
    return [results[place] for place in range(len(tensors))]
