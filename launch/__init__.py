"""The programs that people start, and what they are made of."""

__version__ = "0.2.0"  # also in pyproject.toml
