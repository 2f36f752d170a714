"""The rooms of launch/benchmark.py: what takes part, how it is timed, over which links, and what is shown."""
