"""The arithmetic of a run: which batch, how many steps, which rates.  Said aloud before step 1."""

from dataclasses import dataclass, replace

from data.order import steps_per_epoch
from distributed.optimization.schedule import Schedule
from launch.job.config import ConfigError, TrainConfig
from launch.job.user.code import UserFunction
from launch.job.user.schedule import rates

DEFAULT_BATCH = 64
DEFAULT_WARMUP = 1.0  # epochs, from the base rate


@dataclass(frozen=True)
class BatchPlan:
    """``micro_batch`` x ``replicas`` x ``accumulate`` = ``global_batch`` examples per optimizer step."""

    micro_batch: int
    replicas: int
    accumulate: int
    steps_per_epoch: int
    epochs: int
    schedule: Schedule

    @property
    def replica_batch(self) -> int:
        """Examples of one replica per optimizer step."""
        return self.micro_batch * self.accumulate

    @property
    def global_batch(self) -> int:
        return self.replica_batch * self.replicas

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    def sentence(self) -> str:
        """The batch arithmetic in one line."""
        schedule = self.schedule
        rate = f"learning rate {schedule.peak:.4g}"
        if schedule.given is not None:
            rate = f"learning rate by {schedule.kind}, at most {schedule.peak:.4g}"
        if schedule.factor != 1:
            rate += (
                f" = {schedule.peak / schedule.factor:.4g} x {schedule.factor:.4g} ({schedule.scaling}, "
                f"{self.global_batch}/{schedule.base_batch})"
            )
        from_base = schedule.warmup_from == "base"
        level = schedule.warmup_steps == 0 or (from_base and schedule.factor == 1)
        warmup = "" if level else f", warm-up {schedule.warmup_steps} steps"
        warmup += "" if level or from_base else f" from {schedule.rate(0):.4g}"
        return (
            f"batch: {self.micro_batch} per replica x {self.replicas} replicas x {self.accumulate} accumulation = "
            f"{self.global_batch} global; "
            f"{self.steps_per_epoch} steps x {self.epochs} epochs = {self.total_steps} steps; "
            f"{rate}{warmup}"
        )


def create_batch_plan(
    config: TrainConfig,
    *,
    examples: int,
    replicas: int,
    own_schedule: UserFunction | None = None,
    before: tuple[int, int] | None = None,
) -> BatchPlan:
    """Work out the batch, the steps and the rates.

    Args:
        config: the run's settings.
        examples: size of the training set.
        replicas: model copies in the run.
        own_schedule: the user's function that gives the learning rates.
        before: global batch and steps per epoch of the run that is gone on with. With the same batch an epoch has no
            fewer steps than then, so that epochs, rates and decisions stay where they were.

    Raises:
        ConfigError: if the global batch cannot be dealt out evenly, or a micro-batch not be cut into spans; or the
            schedule gives what is no rate.
        UserCodeError: it raised an exception.
        data.datasets.DataError: if there are fewer examples than one global batch.
    """
    accumulate = config.accumulate_steps
    if config.global_batch_size:
        # Either the size of the micro-batches is given or their number; the other one follows.
        given, word = (
            config.micro_batch_size or accumulate,
            "micro-batch size" if config.micro_batch_size else "accumulation",
        )
        share = replicas * given
        follows, rest = divmod(config.global_batch_size, share)
        if rest or not follows:
            near = max(share, config.global_batch_size // share * share)
            raise ConfigError(
                f"--global-batch-size {config.global_batch_size} does not divide by {replicas} replicas x "
                f"{given} {word}; use a multiple of {share}, for example {near}"
            )
        micro, accumulate = (given, follows) if config.micro_batch_size else (follows, given)
    else:
        micro = config.batch_size or DEFAULT_BATCH
    span = config.batch_norm_span
    if span != "global" and micro % span:
        near = max(size for size in range(1, min(span, micro) + 1) if micro % size == 0)
        raise ConfigError(
            f"--batch-norm-span {span} does not divide the {micro} examples that a replica computes at a time; use a "
            f"divisor of {micro}, for example {near}, or global"
        )
    global_batch = micro * replicas * accumulate
    fill = before[1] if before is not None and before[0] == global_batch else None
    steps = steps_per_epoch(examples, global_batch, config.steps_per_epoch, fill)
    given, every = None, 1
    if own_schedule is not None:
        given, every = rates(own_schedule, config.learning_rate, epochs=config.epochs, steps_per_epoch=steps)
    schedule = Schedule(
        base=config.learning_rate,
        scaling=config.lr_scaling,
        global_batch=global_batch,
        base_batch=config.base_batch_size or (global_batch if config.global_batch_size else micro),
        kind=config.schedule,
        warmup_steps=round((DEFAULT_WARMUP if config.warmup_epochs is None else config.warmup_epochs) * steps),
        total_steps=steps * config.epochs,
        minimum=config.min_learning_rate,
        given=given,
        given_every=every,
    )
    if config.warmup_epochs is not None and schedule.factor <= 1:
        # Nothing to grow to from the base rate; and who asks for a warm-up wants one, on one process, too.
        schedule = replace(schedule, warmup_from="hundredth")
    return BatchPlan(micro, replicas, accumulate, steps, config.epochs, schedule)
