"""When checkpoints are made, and what stands in them; how they are written is ``distributed/checkpoint``'s."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from distributed.checkpoint.saver import Saver
from distributed.decisions import Decisions
from distributed.model import LockstepModel
from distributed.strategies import Strategy


class SaveFailed(Exception):
    """A checkpoint could not be written; its message is one sentence. All workers raise it together."""


@dataclass
class Progress:
    """Where a run stands: a checkpoint brings it, ``loop.py`` takes it on, the next checkpoint holds it.

    Attributes:
        step: steps taken so far.
        epoch: the epoch that is under way or comes next, counted from 0.
        learning_rate: that of the last step.
        stopped: whether it was decided that no further epoch follows.
        stopped_by_callback: whether a callback of the user's decided that.
        epoch_metrics: of the last epoch.
        thawed: whether layers that were frozen at first train by now.
    """

    step: int = 0
    epoch: int = 0
    learning_rate: float | None = None
    stopped: bool = False
    stopped_by_callback: bool = False
    epoch_metrics: dict = field(default_factory=dict)
    thawed: bool = False


class Checkpoints:
    """Saves a run as it stands; the chief writes, all workers lend what they hold."""

    def __init__(
        self,
        strategy: Strategy,
        model: LockstepModel,
        saver: Saver,
        facts: dict,
        decisions: Decisions,
        progress: Progress,
        before_save: Callable[[], None],
    ):
        """Args: ``facts`` about the run that a resumed one is compared with, see ``compatibility.py``;
        ``before_save`` is called on the chief."""
        self.strategy, self.model, self.saver, self.facts = strategy, model, saver, facts
        self.decisions, self.progress, self.before_save = decisions, progress, before_save

    def commit(self, metric_states: list | None = None, *, improved: bool | None = None) -> None:
        """Begin to save; all workers must call it.

        Args:
            metric_states: of the epoch that is under way, as ``LockstepModel.metric_states`` gives them; None where the
                last one has ended.
            improved: where an epoch has just been decided on, whether it is the best so far.
        """
        self.model.gather()
        if not self.strategy.is_chief:
            return
        self.before_save()
        progress, steps_per_epoch = self.progress, self.facts["steps_per_epoch"]
        state = asdict(progress)
        # All steps of an epoch may be taken while it is not decided on yet: it is still the one under way.
        state["epoch_step"] = progress.step - progress.epoch * steps_per_epoch
        state |= {"decisions": self.decisions.state(), "metrics": metric_states}
        monitored = None  # in mid-epoch
        if metric_states is None:
            name = self.decisions.rules.monitor
            monitored = {} if improved is None else {name: progress.epoch_metrics[name]}
        self.saver.save(
            progress.step,
            self.model.network.weights,
            self.model.optimizer.variables,
            self.facts | state,
            monitored=monitored,
            best=bool(improved),
        )

    def finish(self) -> None:
        """Wait for the save in flight; all workers must call it.

        Raises:
            SaveFailed: on all workers, if this save or one before it has failed.
        """
        self.saver.wait()
        if problem := self.strategy.control.agree(self.saver.problem):
            raise SaveFailed(problem)
