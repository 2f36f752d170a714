"""What a process computes on: which GPU, which cores."""
