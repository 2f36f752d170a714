"""Checkpoints that a crash at any instruction leaves whole."""
