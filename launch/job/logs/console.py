"""What people see: one header, a live bar on a terminal or a line per epoch elsewhere, and where things are at the
end."""

import sys

from rich.console import Console as RichConsole
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Console:
    """The chief's voice; on all other workers it is silent."""

    def __init__(self, enabled: bool, *, launched: bool = False):
        """Args: whether this worker speaks; whether a launcher passes its words on (mpirun gives a false terminal)."""
        self._rich = RichConsole(quiet=not enabled, highlight=False, soft_wrap=True)
        # Under horovodrun, Slurm or a pipe a bar would only fill the log.
        self._live = enabled and not launched and self._rich.is_terminal
        self._bar = None
        self._tenth = 0

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

    def indexing(self, done: int, total: int) -> None:
        """Show how far the first pass over TFRecord shards is: a bar on a terminal, else a line per tenth."""
        if self._live:
            if self._bar is None:
                self._bar = Progress(TextColumn("indexing shards"), BarColumn(), DownloadColumn(), console=self._rich)
                self._bar.add_task("", total=total)
                self._bar.start()
            self._bar.update(self._bar.task_ids[0], completed=done)
            if done >= total:
                self.stop()
        elif (tenth := 10 * done // max(total, 1)) != self._tenth:
            self._tenth = tenth
            self.say(f"indexing shards: {10 * tenth} % of {total / 1e6:,.0f} MB")

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
