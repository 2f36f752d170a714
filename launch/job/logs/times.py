"""``times.csv``: where the time went, a line per epoch and rank; see ``launch/job/timing/epoch_clock.py``."""

import csv
import os
from pathlib import Path

from distributed.checkpoint import disk
from launch.job.logs.console import Console
from launch.job.logs.epochs import take_up_table
from launch.job.logs.observer import Observer, spared
from launch.job.timing.epoch_clock import PARTS


class TimesTable(Observer):
    """Writes it: lines are added, since there may be hundreds in an epoch."""

    COLUMNS = ("epoch", "rank", "host", *PARTS)

    def __init__(self, path: Path, console: Console):
        self.path, self.console, self.failed = path, console, False

    @spared
    def begin(self, step, epochs):
        # A run that goes on repeats the epochs behind its checkpoint; a kill may have torn the last line.
        kept = [row for row in take_up_table(self.path, self.console) if int(row["epoch"]) <= epochs]
        with disk.whole_file(self.path) as beside, open(beside, "w", newline="") as file:
            writer = csv.DictWriter(file, self.COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    @spared
    def end_epoch(self, epoch):
        with open(self.path, "a", newline="") as file:
            writer = csv.writer(file)
            for number, rank in enumerate(epoch.ranks):
                seconds = [f"{rank.seconds[part]:.4f}" for part in PARTS]
                writer.writerow([epoch.number, number, rank.host, *seconds])
            file.flush()
            os.fsync(file.fileno())
