"""What outlives a process: the run directory, who owns it, the checkpoints in it, and going on from them."""
