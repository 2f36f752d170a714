"""When checkpoints are made, and what stands in them; how they are written is ``distributed/checkpoint/saver.py``'s."""

from collections.abc import Callable

import keras

from distributed.checkpoint.saver import Saver
from distributed.strategies import Strategy
from launch.job.callbacks import Decide, Progress, StopOnNonFinite


class SaveFailed(Exception):
    """A checkpoint could not be written; its message is one sentence. All workers raise it together."""


class Checkpoints(keras.callbacks.Callback):
    """Save every so many steps and at each epoch's end; the chief writes, all lend their metric state.

    Put after the observers: what they have logged by then is then on the disk before the checkpoint, so that a run that
    goes on from it finds no gap.
    """

    def __init__(
        self,
        strategy: Strategy,
        saver: Saver,
        facts: dict,
        decide: Decide,
        progress: Progress,
        health: StopOnNonFinite,
        *,
        every: int | None,
        flush_logs: Callable[[], None],
    ):
        """Args: ``facts`` about the run that a resumed one is compared with; see ``launch/job/resume.py``."""
        super().__init__()
        self.strategy, self.saver, self.facts = strategy, saver, facts
        self.decide, self.progress, self.health = decide, progress, health
        self.every, self.flush_logs = every, flush_logs

    def on_train_batch_end(self, batch, logs=None):
        last_of_epoch = self.progress.step % self.facts["steps_per_epoch"] == 0
        if self.every and self.progress.step % self.every == 0 and not last_of_epoch:
            self.health.check()
            self.commit(self.model.metric_states())

    def on_epoch_end(self, epoch, logs=None):
        self.commit(None, judged=True)

    def commit(self, metric_states: list | None, *, judged: bool = False) -> None:
        """Begin to save the run as it stands; all workers must call it.

        Args:
            metric_states: those of an epoch that is under way, as ``LockstepModel.metric_states`` gives them.
            judged: whether an epoch has just ended and been decided on.
        """
        self.model.gather()
        if not self.strategy.is_chief:
            return
        self.flush_logs()
        decide, step = self.decide, self.progress.step
        epoch, epoch_step = divmod(step, self.facts["steps_per_epoch"])
        if metric_states is not None and not epoch_step:
            # All steps of the epoch are taken, but it is not judged yet.
            epoch, epoch_step = epoch - 1, self.facts["steps_per_epoch"]
        state = self.facts | {
            "step": step,
            "epoch": epoch,
            "epoch_step": epoch_step,
            "learning_rate": self.progress.learning_rate,
            "decisions": decide.decisions.state(),
            "stopped": decide.stopped,
            "epoch_metrics": decide.metrics,
            "metrics": metric_states,
        }
        monitor = decide.decisions.rules.monitor
        self.saver.save(
            step,
            self.model.network.weights,
            self.model.optimizer.variables,
            state,
            monitored={monitor: decide.metrics[monitor]} if judged else None,
            best=judged and decide.improved,
        )

    def finish(self) -> None:
        """Wait for the save in flight; all workers must call it.

        Raises:
            SaveFailed: on all workers, if this save or one before it has failed.
        """
        self.saver.wait()
        if problem := self.strategy.control.agree(self.saver.problem):
            raise SaveFailed(problem)


class RestoreMetrics(keras.callbacks.Callback):
    """Let the rest of a broken epoch add to the metrics that its first part had."""

    def __init__(self, states: list | None):
        super().__init__()
        self.states = states

    def on_epoch_begin(self, epoch, logs=None):
        if self.states is not None:
            self.model.restore_metric_states(self.states)
