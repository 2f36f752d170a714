"""Measure Lockstep beside what else could be used, in one run, on this machine:

python launch/benchmark.py throughput     # one process on real images: Keras' fit with a per-element pipeline
python launch/benchmark.py scaling        # N ranks on N cores: hand-written Horovod
python launch/benchmark.py exchange       # two ranks over slow links: hand-written Horovod (Linux, root)
python launch/benchmark.py input          # input pipelines alone
python launch/benchmark.py overhead       # one repeated batch: bare fit
python launch/benchmark.py overhead --models tiny:8     # what the host costs: fit, a loop by hand, Horovod by hand
python launch/benchmark.py checkpoint     # what saving costs
python launch/benchmark.py networks       # networks on one rank and on two
python launch/benchmark.py frozen         # what frozen layers save
python launch/benchmark.py start          # from the command to the first step: TensorFlow and one step by hand
python launch/benchmark.py project --ranks 8,64,512 --link 100gbit --per-host 8 --device a100   # a projection

... --models alexnet_cifar:64,vgg16:8 --json result.json     # also writes result.png

All contestants of a comparison live at the same time and take turns, A, B, A, B; shown are medians over the rounds with
the smallest and the largest.  The other programs are plain scripts in launch/baselines.
"""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from distributed.world import World
from launch.bench import arguments, projection, report
from launch.bench.comparisons.exchange import exchange
from launch.bench.comparisons.networks import frozen, networks
from launch.bench.comparisons.one_host import checkpoint, inputs, overhead, scaling, throughput
from launch.bench.comparisons.start import start
from launch.bench.runner import BenchmarkError, Runner
from launch.job import environment
from launch.job.config import ConfigError

COMPARISONS = {"throughput": throughput, "scaling": scaling, "overhead": overhead, "checkpoint": checkpoint}
COMPARISONS |= {"exchange": exchange, "input": inputs, "start": start, "networks": networks, "frozen": frozen}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: list[str] | None = None) -> int:
    """Run one comparison and return the exit code: 0 finished, 2 the user can mend it, 1 anything else."""
    argv = sys.argv[1:] if argv is None else argv
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 300  # a table that somebody wants to keep must not be folded to 80 columns
    for number in SIGNALS:
        signal.signal(number, _leave)
    try:
        settings = arguments.parse(argv, __doc__, COMPARISONS)
        if settings.command == "project":
            projection.show(settings, console)
            return 0
        facts = {"benchmark": settings.command, "arguments": argv}
        facts |= {"machine": report.machine(), "load_before": report.load()}
        environment.prepare(World(), verbose=False)
        with Runner(lambda text: console.print(text, style="dim", markup=False)) as runner:
            result = COMPARISONS[settings.command](settings, runner)
        facts["load_after"] = report.load()
    except (ConfigError, BenchmarkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    report.show(result, facts, console)
    if settings.json:
        console.print("written:", *report.save(result, settings.json, facts), markup=False, soft_wrap=True)
    return 0


def _leave(number: int, frame) -> None:
    """Leave by an exception, so that what was started and built is taken down, and let nothing disturb that."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
