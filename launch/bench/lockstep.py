"""Lockstep as a contestant: launch/train.py as it is, with data and a callback of the benchmark's.

python launch/bench/lockstep.py --model MODEL [--endless FILE.npz] MORE FLAGS OF train.py

``--endless`` trains on the file's images over and over; ``--model tiny`` is launch/bench/tiny.py.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from launch import train
from launch.bench import tiny


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--endless", type=Path)
    parser.add_argument("--model")
    own, words = parser.parse_known_args()

    # Called when the environment is settled: they load TensorFlow.
    def endless():
        from launch.bench.plugins import Endless

        return Endless(own.endless), None

    def callbacks():
        from launch.bench.plugins import BenchmarkedRun

        return [BenchmarkedRun()]

    given = {"data": own.endless and endless, "callbacks": callbacks}
    if own.model == "tiny":
        return train.main(words, model=tiny.network, **given)
    return train.main([*words, "--model", own.model], **given)


if __name__ == "__main__":
    sys.exit(main())
