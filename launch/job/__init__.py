"""What the programs are made of."""

import os

from launch.job.environment import leftovers

leftovers.settle_early(os.environ)
