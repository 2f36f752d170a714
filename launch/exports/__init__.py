"""From a trained run to files that other programs load."""
