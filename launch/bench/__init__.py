"""The rooms of launch/benchmark.py: who takes part, what is compared, how it is timed, what is shown."""
