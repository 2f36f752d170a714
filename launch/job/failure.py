"""How a worker that fails alone ends: it says so, and takes down the others."""

import resource
import time
import traceback
from collections.abc import Callable

from distributed.health import heartbeat
from distributed.world import World
from launch.job.logs.console import Console


def fail(
    error: Exception,
    world: World,
    abort: Callable[[int], None],
    find_culprit: Callable[[Exception], str | None] = lambda error: None,
) -> int:
    """This worker failed alone: say so, and take down the others, who wait for it.

    Args:
        find_culprit: what the user can mend, in words, or None; it may take its time.

    Returns:
        The exit code, where there are no others; else ``abort`` has ended this process.
    """
    code = 1
    if world.size > 1:
        # A lost neighbour shows as an error here too; its monitor is about to name it.
        time.sleep(0.5)
    if heartbeat.accuse():
        if culprit := too_many_files(error) or find_culprit(error):
            code = 2
        else:
            traceback.print_exception(error)
        who = f"rank {world.rank} on {world.host} failed {heartbeat.place()}: " if world.size > 1 else ""
        Console(True).error(f"{who}{culprit or f'{type(error).__name__}: {error}'}")
    else:
        # To abort now would end the one that may still be looking for what the user can mend.
        heartbeat.wait_for_accuser()
    if world.size > 1:
        abort(code)
    return code


def too_many_files(error: Exception) -> str | None:
    """What to do where this process may not open as many files as it needs; TensorFlow says so in words alone."""
    if "Too many open files" not in str(error):
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"all {limit} files that a process may open here are open; raise the limit (ulimit -n 4096) and start again"
