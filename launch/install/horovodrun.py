"""The horovodrun of .venv/bin, put there by setup.sh: Horovod's own, with twelve differences.

* The stock one loads TensorFlow in a child process, only to ask whether MPI and Gloo were built in: several seconds and
  a screenful of noise before anything starts.  setup.sh has asked already.
* It can be asked to leave.  The stock one hides mpirun behind a shell that dies of any signal and leaves the ranks
  running; and mpirun itself takes SIGTERM and Ctrl-C as an order to kill them two seconds later.  Here mpirun gets
  SIGUSR1, which it hands on, and the ranks save and leave with exit code 85, after Ctrl-C 130; a closed terminal
  (SIGHUP) asks as well, but under nohup.  A second signal kills.
* Whoever reads what it prints may leave: mpirun ends the ranks when it has met a broken pipe ten times.
* A Ctrl-C in its first second ends it.  The stock one asks for MPI's version through a process between, and waits for
  ever where the signal has ended that one.
* Over Gloo the exit code is that of the first process that failed, not 1, and no traceback hides what that one said.
* Over Gloo a rank that was asked to leave keeps its exit code.  The stock one sometimes freezes the shell above it
  before that can tell it, or takes it from the one who waits for it, who then believes that all is well.
* On other machines it finds the MPI of .venv: a shell that ssh opens there has neither its programs nor their place,
  which mpirun's --prefix hands over.
* A host that cannot be reached, and whatever else Horovod refuses, is one sentence and exit code 2, not a traceback.
* What Open MPI would wait for without a word, or complain of at length, is looked at before: files that it may open,
  and room in the folder for temporary ones.
* Where all ranks are on this machine, mpirun listens on the loopback alone.  What else opens a door to anybody in the
  network is said; see docs/security.md.
* No shell is in between: a command is its words.
* Nothing is kept in the home directory, which may not be writable.  The stock one keeps there for an hour which hosts
  it has reached.
"""

import contextlib
import ctypes
import itertools
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from horovod.runner import launch, mpi_run
from horovod.runner.common.util import hosts, safe_shell_exec, tiny_shell_exec
from horovod.runner.common.util.timeout import TimeoutException
from horovod.runner.util import network
from horovod.runner.util.remote import get_remote_command

PATIENCE = 5.0  # seconds that a rank has to leave
SAME_REQUEST = 0.5  # seconds; a signal to the process group may come twice
SSH_ATTEMPTS, SSH_TIMEOUT = 2, 10  # seconds
# Files that mpirun opens: with fewer it hangs (Open MPI 4.1.8: 2 ranks need 33 to 40, 8 ranks 57 to 64).
FILES, FILES_PER_RANK = 32, 6
# Flags -> what they open to anybody who reaches this machine; Horovod 0.28.1 is its last version.
DOORS = {
    "--gloo": "opens a port on all interfaces that asks for no password, where anybody may end the run",
    **dict.fromkeys(
        ("--host-discovery-script", "--min-np", "--min-num-proc"),
        "opens a port on all interfaces where anybody may run code as you (CVE-2024-10190)",
    ),
}
LOOPBACK = Path(sys.prefix) / "lib" / "liblockstep_loopback.so"  # launch/install/loopback.c
ROOM = 1 << 20  # bytes in the folder for temporary files, about what a few ranks share there


def run_mpirun(shell: str, words: list[str], environment: dict[str, str]) -> None:
    """Stand in for the ``os.execve`` of ``sh -c "mpirun ..."`` with which the stock one ends."""
    began = []

    def hand_on(number, _):
        now = time.monotonic()
        if not began:
            began.extend([now, number])
            child.send_signal(signal.SIGUSR1)
        elif now - began[0] > SAME_REQUEST:
            child.terminate()

    # In a process group of its own: a Ctrl-C must reach it as SIGUSR1 only. It dies with this process.
    die_with_parent = ctypes.CDLL(None).prctl
    child = subprocess.Popen(
        shlex.split(words[2]),
        env=environment,
        process_group=0,
        preexec_fn=lambda: die_with_parent(1, signal.SIGTERM, 0, 0, 0),
    )
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, *hangup()):
        signal.signal(number, hand_on)
    code = child.wait()
    interrupted = code == 85 and began and began[1] == signal.SIGINT
    sys.exit(130 if interrupted else 128 - code if code < 0 else code)


def end_command(shell: int) -> None:
    """Stand in for Horovod's ``terminate_executor_shell_and_children``, in the process that waits for the shell: ask
    what it runs to leave, and kill all that has not left in time."""
    with contextlib.suppress(psutil.Error):
        above = psutil.Process(shell)
        ranks = above.children()
        family = [above, *above.children(recursive=True)]
        for process in ranks or [above]:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        end = time.monotonic() + PATIENCE
        while _live([above, *ranks]) and time.monotonic() < end:
            time.sleep(0.05)
        if left := _live([above, *ranks]):
            for process in {*left, *_live(family)}:
                with contextlib.suppress(psutil.Error):
                    process.kill()


def _live(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended, whether or not somebody has asked for their exit codes."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


# Here, as Horovod's processes between the launcher and a rank import this file and call no main function.
safe_shell_exec.terminate_executor_shell_and_children = end_command


@contextlib.contextmanager
def lasting_output():
    """What this process and all it starts print goes through pipes that are read to their ends."""
    screens = {1: os.dup(1), 2: os.dup(2)}
    readers = []
    for number, screen in screens.items():
        if readers and os.path.sameopenfile(*screens.values()):
            os.dup2(1, 2)  # one pipe, so that lines keep their order
            continue
        source, pipe = os.pipe()
        os.dup2(pipe, number)
        os.close(pipe)
        readers.append(threading.Thread(target=pass_on, args=(source, screen), daemon=True))
        readers[-1].start()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, screen in screens.items():
            os.dup2(screen, number)
        for reader in readers:
            reader.join(5.0)  # not for ever: a process that somebody else must end may hold the pipe


def pass_on(pipe: int, screen: int) -> None:
    """Write to the screen all that comes from a pipe; nothing any more once nobody reads it."""
    while text := os.read(pipe, 1 << 16):
        with contextlib.suppress(OSError):
            while text:
                text = text[os.write(screen, text) :]


def hangup() -> list[signal.Signals]:
    """SIGHUP, unless nohup has it ignored."""
    return [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]


def run_briefly(command: str, env: dict[str, str] | None = None) -> tuple[str, int]:
    """Stand in for Horovod's ``tiny_shell_exec.execute``: what a command prints, and its exit code."""
    try:
        words = shlex.split(command)
        done = subprocess.run(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except FileNotFoundError as error:
        return str(error), 127
    return done.stdout, done.returncode


def run_on_hosts(settings, nics: set[str], environment: dict[str, str], command: list[str]) -> None:
    """Call Horovod's ``mpi_run``; where ranks run on other machines too, the wheel's MPI is told where it lies there,
    which is where it lies here."""
    names, slots = hosts.parse_hosts_and_slots(settings.hosts)
    check_limits(min(settings.num_proc, max(slots.values())))
    elsewhere = network.filter_local_addresses(names)
    if elsewhere and (Path(sys.prefix) / "lib" / "libmpi.so").exists():
        settings.extra_mpi_args = f"--prefix {sys.prefix} {settings.extra_mpi_args or ''}".strip()
    if not elsewhere:
        # Ranks on one machine share memory; for TCP they would listen on all interfaces.
        mpi_run._OMPI_FLAGS = ["-mca pml ob1", "-mca btl ^openib,tcp"]
    if not elsewhere and LOOPBACK.exists():
        preloaded = filter(None, (str(LOOPBACK), environment.get("LD_PRELOAD")))
        environment = environment | {"LD_PRELOAD": ":".join(preloaded)}
    mpi_run.mpi_run(settings, nics, environment, command)


class Refused(ValueError):
    """Why nothing can start here, or on other hosts; one sentence."""


def check_limits(ranks: int) -> None:
    """See that mpirun may open the files that so many ranks on one host need, and write temporary ones.

    Raises:
        Refused: with the remedy.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES + FILES_PER_RANK * ranks
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise Refused(f"only {hard} files may be open, but {ranks} ranks need {needed}; raise it: ulimit -n 4096")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    folder = next((os.environ[name] for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)), "/tmp")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
    except OSError as error:
        raise Refused(
            f"Open MPI keeps temporary files in {folder}, which cannot be written ({error.strerror}); "
            "make room there, or set TMPDIR to another folder"
        ) from None


def reach_hosts(names: list[str], port: int | None, identity: str | None, fn_cache: None = None) -> bool:
    """Stand in for Horovod's check that each of these hosts runs a command by ssh; all that do not are named at once.

    Raises:
        Refused: with ssh's own reason for each.
    """

    def problem(name):
        command = get_remote_command("true", host=name, port=port, identity_file=identity, timeout_s=SSH_TIMEOUT)
        for _ in range(SSH_ATTEMPTS):
            words = shlex.split(command)
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            if done.returncode == 0:
                return None
        said = done.stdout.decode(errors="replace").strip().splitlines()
        return f"{name} ({said[-1].strip() if said else f'exit code {done.returncode}'})"

    with ThreadPoolExecutor(max(1, min(len(names), 64))) as pool:
        problems = [found for found in pool.map(problem, names) if found]
    if problems:
        raise Refused(
            f"cannot run a command by ssh on {', '.join(problems)}; see that `ssh HOST true` works without a password "
            "and without a question for each host of -H"
        )
    return True


def warn_of_doors(words: list[str]) -> None:
    """Say what flags of horovodrun open; those of the program that it starts are others."""
    for word in itertools.takewhile(lambda word: not word.endswith(("python", "python3", ".py")), words):
        if opened := DOORS.get(word.partition("=")[0]):
            print(
                f"horovodrun: warning: {word} {opened}: use it in a network where you trust everybody, or leave it "
                "out, which takes MPI",
                file=sys.stderr,
                flush=True,
            )


def main() -> int:
    """Run Horovod's own main function, and return the exit code."""
    warn_of_doors(sys.argv[1:])
    if "--check-build" not in sys.argv and "-cb" not in sys.argv:
        launch.mpi_built = launch.gloo_built = lambda verbose=False: True
    os.execve = run_mpirun
    tiny_shell_exec.execute = run_briefly
    launch.mpi_run = run_on_hosts
    launch._check_all_hosts_ssh_successful = reach_hosts
    launch.cache.Cache = lambda *_: None
    for number in (signal.SIGUSR1, signal.SIGUSR2, *hangup()):
        # Over Gloo: as SIGTERM, which Horovod hands on to the ranks, with 5 seconds to leave.
        signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        return launch.run_commandline()
    except KeyboardInterrupt:
        return 130
    except (RuntimeError, ValueError, OSError, TimeoutException) as error:
        code = re.search(r"Exit code: (\d+)", str(error))
        if code is None:
            print(f"horovodrun: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return int(code[1]) if code else 2


# The guard matters: horovodrun starts helpers that import this file again.
if __name__ == "__main__":
    with lasting_output():
        code = main()
    sys.exit(code)
