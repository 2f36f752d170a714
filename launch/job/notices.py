"""What one worker has to tell all others in mid-run, so that all leave after the same step."""

from distributed.control import Control
from distributed.model import LockstepModel
from distributed.step_report import NOTICES


class Noticed(Exception):
    """Some worker gave a notice; all workers raise this after the same step.

    ``names`` are of ``step_report.NOTICES``; ``metric_states`` those of the epoch that is under way, all its steps
    taken or not, and None where the last epoch has been decided on and saved.
    """

    def __init__(self, names: list[str], metric_states: list | None):
        self.names, self.metric_states = names, metric_states
        super().__init__(", ".join(names))


class Notices:
    """This worker's notices, on their way to the others."""

    def __init__(self, control: Control):
        self._control = control
        self._mine: set[str] = set()
        self._told: set[str] = set()

    def add(self, name: str) -> None:
        """Have something to tell; a signal's thread or the one that saves may call it at any time."""
        self._mine.add(name)

    def tell(self, model: LockstepModel) -> None:
        """Let it travel with the gradients of the next steps, which costs nothing; ``StepReport.heard`` has it then."""
        if self._mine - self._told:
            self._told |= self._mine
            model.tell(self._told)

    def ask(self, value) -> tuple[list[str], list]:
        """Where no gradients travel, the workers ask each other; all must call it.

        Returns:
            The names that any worker gave, and every worker's JSON ``value``, by rank.
        """
        answers = self._control.gather([sorted(self._mine), value])
        return [name for name in NOTICES if any(name in told for told, _ in answers)], [value for _, value in answers]
