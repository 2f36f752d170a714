"""What launch/benchmark.py compares: a function for each of its commands."""
