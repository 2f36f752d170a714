"""The run's data as its workers eat it: settings and plan turned into the pipeline's plain arguments."""

from dataclasses import dataclass

import tensorflow as tf

from data import Splits
from data.order import training_indices, validation_steps
from data.pipeline import PREFETCH, diagnose, training_batches, validation_batches
from distributed.health import heartbeat
from distributed.strategies import Strategy
from launch.job.batch_plan import BatchPlan
from launch.job.config import TrainConfig


@dataclass(frozen=True)
class Inputs:
    """Both splits of the data, and how this run reads them."""

    config: TrainConfig
    plan: BatchPlan
    strategy: Strategy
    splits: Splits
    image_size: int
    threads: int

    def training(self, start_step: int):
        """The endless training stream of this worker, from a step on."""

        def batches(first: int, stride: int) -> tf.data.Dataset:
            return training_batches(
                self.splits.train,
                seed=self.config.seed,
                start_step=start_step,
                steps_per_epoch=self.plan.steps_per_epoch,
                replica_batch=self.plan.replica_batch,
                **self._common(first, stride),
            )

        return self.strategy.distribute(batches)

    def validation(self) -> dict:
        """Keras' arguments for validation; empty where there is nothing to validate on."""
        source, plan = self.splits.validation, self.plan
        if source is None:
            return {}
        return {
            "validation_data": self.strategy.distribute(
                lambda first, stride: validation_batches(
                    source, replica_batch=plan.micro_batch, **self._common(first, stride)
                )
            ),
            "validation_steps": validation_steps(len(source), plan.micro_batch, plan.replicas),
        }

    def find_culprit(self, step: int | None) -> str | None:
        """After an input error: the example that cannot be read, in words, or None if all can.

        Looked for among those that this worker was reading at that training step; None: in the validation set.
        """
        source = self.splits.validation if step is None else self.splits.train
        for indices in ([index] for index in range(len(source))) if step is None else self._read_at(step):
            heartbeat.beat()
            if place := diagnose(source, indices):
                return f"{place}; replace or remove it"
        return None

    def _read_at(self, step: int):
        """Indices of the training examples that this worker was reading at a step, a batch at a time."""
        first, stride = self.strategy.share
        batches = self.threads + PREFETCH + 2
        for element in range(step * self.plan.replicas + first, (step + batches) * self.plan.replicas, stride):
            _, indices = training_indices(
                element,
                n=len(self.splits.train),
                seed=self.config.seed,
                replica_batch=self.plan.replica_batch,
                replicas=self.plan.replicas,
                steps_per_epoch=self.plan.steps_per_epoch,
            )
            yield indices.numpy()

    def _common(self, first: int, stride: int) -> dict:
        return {
            "replicas": self.plan.replicas,
            "first": first,
            "stride": stride,
            "augment": self.config.augment,
            "image_size": self.image_size,
            "threads": self.threads,
        }
