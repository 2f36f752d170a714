"""The settings of a run, in groups; ``launch/job/config.py`` puts them together."""
