"""A real Slurm cluster on this machine: one slurmctld, two slurmd that call themselves n1 and n2, and their own munged.

Everything lies in one temporary folder, listens on the loopback interface alone, and ends with ``close``.  It needs
root (slurmd starts tasks as the job's user) and Debian's packages; ``missing`` says what is not there.
"""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil

PROGRAMS = ("setpriv", "munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
# Debian's Slurm opens libpmix.so, which is in the package for developers.
PACKAGES = "slurmctld slurmd slurm-client munge libpmix-dev"
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

CONFIGURATION = """
ClusterName=lockstep
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
# A folder for each node, or PMIx of the second trips over the first's.
TmpFS={folder}/tmp.%n
SlurmdLogFile={folder}/%n.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
# A killed slurmd is missed within these seconds.
SlurmdTimeout=10
KillWait=30
# So that a job that is over is known until the tests are.
MinJobAge=3600
MpiDefault=none
SlurmctldDebug=verbose
SlurmdDebug=verbose
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=300 OverTimeLimit=0
PartitionName=high Nodes=n1,n2 PriorityTier=2 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if not list(Path("/usr/lib").glob("*/pmix2/lib/libpmix.so")):
        absent.append("libpmix.so")
    if absent:
        return f"{', '.join(absent)} not installed (apt-get install {PACKAGES})"
    return None if os.geteuid() == 0 else "slurmd needs root to start tasks"


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, of those that nobody is given who asks for any: a node that is started again
    finds its own still free."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(max(1024, lowest - 12000), lowest)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports


def wait_for(condition, what: str, timeout: float = 60):
    """Return the first true value of ``condition()``; fail after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {timeout} s in vain for {what}"
        time.sleep(0.2)
    return value


class Cluster:
    """Two nodes with a core each; partition ``high`` preempts ``low``, where jobs go by default."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen] = {}
        # Slurm's own address must be this machine's name; loopback is where it listens.
        host, ports = socket.gethostname().partition(".")[0], free_ports(3)
        (folder / "state").mkdir()
        (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, host=host, ports=ports))
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "OMPI_", "PMIX_"))
        } | {"PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
        try:
            self._start_munged()
            self.start("slurmctld")
            for node in ("n1", "n2"):
                self.start_node(node)
            wait_for(lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D").split() == ["2"], "two idle nodes")
        except BaseException:
            self.close()
            raise

    def _start_munged(self) -> None:
        files = [f"--{name}={self.folder}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        self.start("munged", *files, f"--key-file={self.folder}/munge.key", "--foreground", "--force")
        wait_for((self.folder / "munge.socket").exists, "munged")

    def start(self, program: str, *words: str, name: str | None = None) -> None:
        name = name or program
        words = [program, *words] if program == "munged" else [program, "-D", *words]
        # Killed tests leave no daemons.
        words = ["setpriv", "--pdeathsig", "TERM", *words]
        with open(self.folder / f"{name}.log", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                words, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def start_node(self, node: str) -> None:
        """Boot a node, with nothing left of what ran there before."""
        for folder in (self.folder / f"tmp.{node}", self.folder / f"spool.{node}"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        self.start("slurmd", "-N", node, name=node)

    def run(self, *words, check: bool = True) -> str:
        """What a Slurm command prints."""
        words = [str(word) for word in words]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def close(self) -> None:
        """End the daemons, and with them whatever their jobs have left."""
        for process in reversed(self.daemons.values()):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # Jobs live on without slurmd. slurmstepd writes over its environment, but it keeps the node's log open.
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]
                if process.name() == "slurmstepd":
                    ours = any(file.path.startswith(f"{self.folder}/") for file in process.open_files())
                if ours:
                    process.kill()

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))
