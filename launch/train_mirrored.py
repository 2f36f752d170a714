"""Train with MirroredStrategy: one process, all GPUs of this machine.  Takes the flags of train.py.

python launch/train_mirrored.py
python launch/train_mirrored.py --cpu-devices 2        # where there is no GPU: split the CPU in two devices
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launch.train import main

if __name__ == "__main__":
    sys.exit(main(preset={"strategy": "mirrored"}))
