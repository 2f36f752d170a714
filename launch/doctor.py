"""Look whether this machine, or all machines of a job, are fit for training, before a night is spent on it:

python launch/doctor.py
python launch/doctor.py --data-dir photos --run-dir runs/mine       # reading and writing where the run will
horovodrun -np 4 python launch/doctor.py --data-dir photos          # how the ranks exchange, and in what they differ
srun --mpi=pmix python launch/doctor.py --json doctor.json          # the numbers, also for launch/benchmark.py project

Prints a table of what each rank found and measured, in less than a minute.  ! marks what will cost time, x what will
fail, each with what to do about it; the last line is "ready" (exit code 0), or the list of what to mend (2).
"""

import json
import os
import sys
from pathlib import Path

# The repository's folders come first: `distributed` is also the name of an installed package on many machines.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distributed.checkpoint import disk
from distributed.world import World, WorldError
from launch.diagnosis import findings, machine, software, speed, storage, table
from launch.job import environment
from launch.trained import program
from launch.trained.command_line import Parser, expanded_path


def create_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    path = expanded_path
    parser.add_argument("--data-dir", type=path, metavar="D", help="a folder or file to read from (default: none)")
    parser.add_argument(
        "--run-dir", type=path, default=Path("runs"), metavar="R", help="where a run would write (default: runs)"
    )
    parser.add_argument("--cpu", action="store_true", help="the CPU is meant, also where there is a GPU")
    parser.add_argument("--json", type=path, metavar="FILE", help="also write all numbers as JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the program and return its exit code: 0 ready, 2 something is to be mended, 1 anything else."""
    options = create_parser().parse_args(argv)
    problems = {}
    try:
        world = World.from_environment(os.environ)
    except WorldError as error:
        world, problems["launcher"] = World(host=os.uname().nodename), str(error)
    options.strategy, options.cpu_devices = "horovod" if world.size > 1 else "single", None
    facts = machine.facts(world, cpu=environment.on_cpu(options))
    facts["problems"] = problems | _folders(options, facts)
    if problems:
        return _alone(options, facts)
    if failing := software.failing_imports():
        remedy = "make setup installs it, make clean before it begins anew"
        facts["problems"] |= {name: f"{name} does not load ({why}): {remedy}" for name, why in failing.items()}
        return _alone(options, facts)

    def refused(sentence: str) -> int:
        facts["problems"]["device"] = sentence
        return _alone(options, facts)

    return program.run(options, lambda workers: _together(options, workers, facts), exact=False, refused=refused)


def _folders(options, facts: dict) -> dict[str, str]:
    """Measure the folders; what cannot be done is a problem by the name of its row."""
    problems = {}
    try:
        if options.data_dir is not None:
            facts["read"] = storage.read(options.data_dir, facts["rank"], facts["size"])
    except storage.FolderError as error:
        problems["data folder"] = str(error)
    try:
        facts["write"] = storage.write(options.run_dir)
    except storage.FolderError as error:
        problems["run folder"] = str(error)
    return problems


def _alone(options, facts: dict) -> int:
    """Say what this rank has found without the others, who cannot be reached: all of it at the chief."""
    found = findings.judge([facts])
    lines = table.lines([facts], found) if facts["rank"] == 0 else table.verdict(found, 1)
    if facts["size"] > 1:
        lines = [f"rank {facts['rank']} on {facts['host']}: {line}" for line in lines]
    print("\n".join(lines), flush=True)
    if options.json is not None and facts["rank"] == 0:
        try:
            _write(options.json, table.numbers([facts], found))
        except OSError as error:
            print(f"error: {options.json} cannot be written ({error.strerror})", file=sys.stderr, flush=True)
    return 2


def _together(options, workers: program.Workers, facts: dict) -> int:
    """Measure with all ranks, compare, show."""
    control = workers.strategy.control
    kind = software.device_kind()
    facts["jpeg_per_second"] = speed.jpeg_decoding()
    control.gather(None)
    facts["matmul_tflops"] = speed.matrix_products(kind)
    if facts["size"] > 1:
        facts["clock"] = speed.clock_difference(control)
        facts |= speed.exchange(workers.strategy)
    facts |= software.facts()
    ranks = control.gather(facts)
    found = findings.judge(ranks)
    for line in table.lines(ranks, found):
        workers.console.say(line)
    if options.json is not None:
        workers.on_chief(lambda: _write(options.json, table.numbers(ranks, found)))
    return 2 if any(finding.fatal for finding in found) else 0


def _write(path: Path, numbers: dict) -> None:
    with disk.whole_file(path) as beside:
        beside.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
