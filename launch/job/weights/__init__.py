"""Weights that a run begins with: files of many kinds, and which of their layers are whose."""
