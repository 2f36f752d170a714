"""The run's data as its workers eat it: settings and plan turned into the pipeline's plain arguments."""

import time
from dataclasses import dataclass
from functools import cached_property

import tensorflow as tf

from data import Splits
from data.datasets import Source
from data.diagnose import diagnose, scan
from data.order import Order, SequentialOrder, Share
from data.pictures.decode import Decoding
from data.pipeline import PREFETCH, training_batches, validation_batches
from distributed.health import heartbeat
from distributed.strategies import Strategy
from launch.job.config import TrainConfig
from launch.job.preparation.batch_plan import BatchPlan

SCAN_SECONDS = 60.0  # that the other workers wait for what else is damaged


@dataclass(frozen=True)
class Inputs:
    """Both splits of the data, and how this run reads them."""

    config: TrainConfig
    plan: BatchPlan
    strategy: Strategy
    splits: Splits
    image_size: int
    threads: int
    decoding: Decoding

    @cached_property
    def order(self) -> Order:
        """Which training examples stand where in the run."""
        return Order(
            examples=len(self.splits.train),
            seed=self.config.seed,
            replica_batch=self.plan.replica_batch,
            replicas=self.plan.replicas,
            # In exact mode what one replica computes one after the other stands in the order of the examples.
            turns=1 if self.config.exact else self.plan.accumulate,
            cap=self.config.steps_per_epoch,
            fill=self.plan.steps_per_epoch,
        )

    @cached_property
    def validation_order(self) -> SequentialOrder:
        """Which validation examples stand where in a pass; without validation a pass of no steps."""
        examples = 0 if self.splits.validation is None else len(self.splits.validation)
        return SequentialOrder(examples=examples, replica_batch=self.plan.micro_batch, replicas=self.plan.replicas)

    @property
    def validation_examples(self) -> int:
        """Validation examples of all workers together; 0 without validation."""
        return self.validation_order.examples

    @property
    def validation_steps(self) -> int:
        """Steps of one pass over the validation examples, the same on every replica; 0 without validation."""
        return self.validation_order.steps

    def training(self, start_step: int):
        """The endless training stream of this worker, from a step on, as the strategy deals it to its replicas.

        Each replica gets (images uint8 [b, s, s, 3], labels int32 [b], sample ids int64 [b]) per step, with
        b = plan.replica_batch and s = image_size.
        """

        def batches(first: int, stride: int) -> tf.data.Dataset:
            return training_batches(
                self.splits.train,
                order=self.order,
                share=Share(first, stride),
                start_step=start_step,
                augment=self.config.augment,
                image_size=self.image_size,
                threads=self.threads,
                decoding=self.decoding,
            )

        return self.strategy.distribute(batches)

    def validation_batches(self):
        """One pass of this worker over the validation examples, as the strategy deals it; None without validation.

        Each replica gets `validation_steps` times (images uint8 [b, s, s, 3], labels int32 [b], weights float32 [b])
        with b = plan.micro_batch and s = image_size. Each iterator over the result is a whole pass; building the
        pipeline takes longer than beginning a pass, so all calls give the same one.
        """
        return self._validation_batches if self.validation_steps else None

    @cached_property
    def _validation_batches(self):
        def batches(first: int, stride: int) -> tf.data.Dataset:
            return validation_batches(
                self.splits.validation,
                order=self.validation_order,
                share=Share(first, stride),
                augment=self.config.augment,
                image_size=self.image_size,
                threads=self.threads,
                decoding=self.decoding,
            )

        return self.strategy.distribute(batches)

    def find_culprit(self, step: int | None, steps: int = 1) -> str | None:
        """After an input error: the example that cannot be read, in words, or None if all can.

        Looked for among those that this worker was reading for so many steps from that training step on; None: in the
        validation set.
        """
        source = self.splits.validation if step is None else self.splits.train
        for indices in ([index] for index in range(len(source))) if step is None else self._read_at(step, steps):
            heartbeat.beat()
            if place := diagnose(source, indices):
                return self._all_like(place)
        return None

    def _all_like(self, first: str) -> str:
        """The picture that was found, and all others of the run that cannot be decoded, as far as a minute goes: who
        has one mostly has more, and each would cost a start."""
        places, looked_at, until = [first], 0, time.monotonic() + SCAN_SECONDS
        for source in filter(None, self.splits):
            found = scan(source, self.threads, until, heartbeat.beat)
            places += found.problems
            looked_at += found.looked_at
        places = list(dict.fromkeys(places))
        total = sum(map(len, filter(None, self.splits)))
        part = f"\n  {looked_at:,} of {total:,} were looked at; launch/check_data.py looks at all"
        rest = "" if looked_at == total else part
        if len(places) == 1:
            return f"{first}; replace or remove it{rest}"
        return "\n  ".join([f"{len(places):,} pictures cannot be decoded; replace or remove them:", *places]) + rest

    def _read_at(self, step: int, steps: int):
        """Indices of the training examples that this worker may have been reading, a batch at a time."""
        end = step + steps + self.threads + PREFETCH + 1
        for element in Share(*self.strategy.share).elements(self.plan.replicas, step, end):
            _, indices = self.order.indices(element)
            yield indices.numpy()


def find_unreadable(source: Source, order: SequentialOrder, share: tuple[int, int], step: int) -> str | None:
    """The first example that cannot be read among those that a worker was reading for a step of a pass over a source;
    None if all can."""
    for element in Share(*share).elements(order.replicas, step, min(step + PREFETCH + 2, order.steps)):
        heartbeat.beat()
        indices, _ = order.indices(element)
        if place := diagnose(source, indices.numpy()):
            return place
    return None
