"""What must be settled before TensorFlow and MPI are loaded, and how they are loaded then."""

from launch.job.environment.imports import loading, silence
from launch.job.environment.launchers import command, launcher
from launch.job.environment.process import on_cpu, prepare

__all__ = ["command", "launcher", "loading", "on_cpu", "prepare", "silence"]
