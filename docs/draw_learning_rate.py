"""Draw docs/learning_rate.png: python docs/draw_learning_rate.py"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from distributed.optimization.schedule import Schedule

STEPS, WARMUP = 1000, 100
figure, axes = pyplot.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharey=True)
for kind in ("constant", "cosine", "step", "polynomial"):
    schedule = Schedule(0.01, "linear", 512, 64, kind, WARMUP, STEPS)
    axes[0].plot([schedule.rate(step) for step in range(STEPS)], label=kind)
for scaling in ("linear", "sqrt", "none"):
    schedule = Schedule(0.01, scaling, 512, 64, "cosine", WARMUP, STEPS)
    # As if validation had stopped improving at step 600.
    axes[1].plot([schedule.rate(step, 1.0 if step < 600 else 0.5) for step in range(STEPS)], label=scaling)
axes[0].set(title="--schedule, with --lr-scaling linear", xlabel="step", ylabel="learning rate")
axes[1].set(title="--lr-scaling, with --schedule cosine and a plateau at step 600", xlabel="step")
for axis in axes:
    axis.legend()
    axis.grid(alpha=0.3)
figure.savefig(Path(__file__).with_name("learning_rate.png"), dpi=100)
