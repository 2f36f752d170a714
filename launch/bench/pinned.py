"""Run a command on some cores that ends when its parent does: python pinned.py 0,1 COMMAND ...

Nothing a benchmark starts may outlive it, however it ends; stopped processes would otherwise stay for ever.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; kept over exec

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.sched_setaffinity(0, {int(core) for core in sys.argv[1].split(",")})
    os.execvp(sys.argv[2], sys.argv[2:])
