"""What people see: one header, a live bar on a terminal or a line per epoch elsewhere, and where things are at the
end."""

import sys
import time

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LONG = 2.0  # seconds of opening data from which on a log is told how far it is


class Console:
    """The chief's voice; on all other workers it is silent."""

    def __init__(self, enabled: bool, *, launched: bool = False):
        """Args: whether this worker speaks; whether a launcher passes its words on (mpirun gives a false terminal)."""
        self._rich = RichConsole(quiet=not enabled, highlight=False, soft_wrap=True)
        # Under horovodrun, Slurm or a pipe a bar would only fill the log.
        self._live = enabled and not launched and self._rich.is_terminal
        self._bar = None
        self._opening, self._since, self._tenth = "", 0.0, 0

    def say(self, text: str = "") -> None:
        """Print one line at once; ``text`` is shown as it is."""
        self._rich.print(text, markup=False)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Print one line to stderr, beside results that a program may read from stdout."""
        if not self._rich.quiet:
            print(text, file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """Print one line to stderr, where errors belong."""
        if not self._rich.quiet:
            print(f"error: {text}", file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Print one line to stderr about what does not end the run."""
        if not self._rich.quiet:
            print(f"warning: {text}", file=sys.stderr, flush=True)

    def opening(self, what: str, done: int, total: int) -> None:
        """Show how far the data is opened: a bar on a terminal, else, where it takes long, a line per tenth.

        Args:
            what: such as "listing folders"; then how much of how much is done.
        """
        if what != self._opening:
            self.stop()
            self._opening, self._since, self._tenth = what, time.monotonic(), 0
        if self._live:
            if self._bar is None:
                columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
                self._bar = Progress(*columns, console=self._rich, transient=True)
                self._bar.add_task("")
                self._bar.start()
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)
        elif (tenth := 10 * done // max(total, 1)) != self._tenth and time.monotonic() - self._since > LONG:
            self._tenth = tenth
            self.say(f"{what}: {10 * tenth} % of {total:,}")

    def start_epoch(self, title: str, steps: int) -> None:
        if self._live:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._rich, transient=True)
            self._bar.add_task(title, total=steps, note="")
            self._bar.start()

    def advance(self, done: int, note: str) -> None:
        """Show that ``done`` steps of the epoch are over."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, note=note)

    def end_epoch(self, line: str) -> None:
        self.stop()
        self.say(line)

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar:
            self._bar.stop()
            self._bar = None
