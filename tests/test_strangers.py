"""Whatever strangers send is refused in one sentence, or read; nothing of it runs, reaches out, or takes all memory.

The inputs are made in ``tests/helpers/hostile*.py``.  One process reads them all as Lockstep's programs do; strace sees
what it opens, starts, connects to and changes.
"""

import json
import os
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import HELPERS, ROOT, record_fault, run_command, run_jobs

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed (apt-get install strace)")

STARTS = {"execve", "execveat", "fork", "vfork", "clone", "clone3"}
TALKS = {"socket", "connect", "bind", "listen", "accept", "accept4", "sendto", "sendmsg", "socketpair"}
OPENS = {"open", "openat", "openat2", "creat"}
CHANGES = {"mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "symlink", "symlinkat",
           "link", "linkat", "chmod", "fchmodat", "chown", "fchownat", "truncate", "mknod", "mknodat"}  # fmt: skip
LOOKS = {"access", "faccessat", "faccessat2"}
MOST = 1024  # MiB that one input may take
SENTENCE = 30_000  # characters
# What systems, Python and its libraries read for themselves.
OWN = (str(ROOT), sys.prefix, sys.base_prefix, "/usr/lib", "/lib", "/sys/", "/dev/urandom", "/dev/null")
OWN += ("/usr/local/lib/plugin", "/usr/local/hdf5/lib/plugin")  # where HDF5 looks for ways to unpack
OWN += tuple(f"/proc/{name}" for name in ("meminfo", "stat", "cpuinfo", "filesystems", "sys/vm/overcommit_memory"))
# Links in a folder of pictures are followed, as sets are put together from them; what is there is no picture.
OWN += tuple(f"/etc/{name}" for name in ("ld.so.cache", "localtime", "locale.alias"))
OWN += ("/usr/share/locale", "/usr/share/zoneinfo")
# Files so many that processes of ours look at them (`data/pictures/look.py`), which it starts so.
MANY = "100,000 rows of one picture"
LOOKERS = re.compile(rf'vfork\(|execve\("{re.escape(sys.executable)}".*data\.pictures import look')
LINKED = {"the passwords": "/etc/passwd", "an endless device": "/dev/zero", "a process's memory": "/proc/"}
CALL = re.compile(r"^(?P<pid>\d+)\s+(?P<name>\w+)\((?P<arguments>.*)$")


def read_strangers(folder: Path, every: int, offset: int = 0) -> tuple[list[dict], dict[int, list[tuple[str, str]]]]:
    """The answers to every ``every``-th input, and by its number the system calls that were made meanwhile."""
    calls = ",".join(sorted(STARTS | TALKS | OPENS | CHANGES | LOOKS))
    words = ["strace", "-f", "--seccomp-bpf", "-y", "-qq", "-s", "4096", "-e", "signal=none", "-e", f"trace=?{calls}"]
    words[-1] = "trace=" + ",".join(f"?{name}" for name in calls.split(","))
    words += ["-o", folder / "trace", sys.executable, "-B", HELPERS / "hostile.py", folder, every, offset]
    (temporary := folder / "run").mkdir()  # where a library's temporary files may go
    done = run_command(*words, timeout=1500, TMPDIR=str(temporary), HOME=str(folder / "home"))
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert done.returncode == 0, f"after {answers[-1:]}: {done.stderr[-3000:]}"
    return answers, by_input((folder / "trace").read_text(errors="replace").splitlines())


def by_input(lines: list[str]) -> dict[int, list[tuple[str, str]]]:
    """Input -> (name, arguments and result) of each call between its mark and the next."""
    made, number = defaultdict(list), None
    for line in lines:
        call = CALL.match(line)
        if call is None:  # the end of a call whose beginning was seen, or of a thread
            continue
        name, arguments = call["name"], call["arguments"]
        if name in LOOKS:
            if mark := re.search(r'"/reading/(\d+)"', arguments):
                number = int(mark[1])
            elif '"/read"' in arguments:
                number = None
        elif number is not None:
            made[number].append((name, arguments))
    return made


def places(arguments: str) -> list[str]:
    """The paths of a call, absolute, and that of the file which it opened."""
    found = []
    folder = "/"
    for part in re.finditer(r'(?:AT_FDCWD|\d+)<(?P<folder>[^>]*)>|"(?P<path>(?:[^"\\]|\\.)*)"', arguments):
        if part["path"] is None:
            folder = part["folder"]
        else:
            found.append(os.path.normpath(os.path.join(folder, part["path"])))
    if opened := re.search(r"= \d+<([^>]*)>$", arguments):
        found.append(opened[1])
    return found


def trespasses(answer: dict, calls: list[tuple[str, str]], folder: Path) -> list[str]:
    """Calls that the input had no right to."""
    mine = f"{folder}/inputs/{answer['number']}"
    allowed = [mine, f"{folder}/run", *OWN]
    if answer["kind"] in ("folder trees", "TFRecords") or "device" in answer["name"]:
        allowed += [path for what, path in LINKED.items() if what in answer["name"]]
    if answer["name"] == "pictures of no class":
        allowed.append(f"{folder}/inputs")  # may it be one class of the folder above?
    # An index is kept beside its shards, or else in the home directory.
    changeable = [f"{folder}/run", f"{folder}/home/.cache/lockstep", "/dev/null"]
    changeable += [mine] if answer["kind"] == "TFRecords" else []
    found = []
    for name, arguments in calls:
        # What inputs that would run do: make this folder, or touch this file.
        ran = re.search(r'[/"]executed"', arguments)
        writes = name in CHANGES or name in OPENS and re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND", arguments)
        if name in STARTS:
            ours = answer["name"] == MANY and LOOKERS.match(f"{name}({arguments}")
            bad = "CLONE_THREAD" not in arguments and not ours
        elif name in TALKS:
            bad = True
        else:
            within = changeable if writes else allowed
            bad = not all(any(place.startswith(start) for start in within) or is_own_process(place)
                          for place in places(arguments))  # fmt: skip
        if bad or ran:
            found.append(f"{name}({arguments}"[:300])
    return found


def is_own_process(place: str) -> bool:
    return re.match(r"/proc/(self|\d+)/(status|clear_refs|statm|maps|stat|cgroup|mountinfo|task)", place) is not None


def judged(answer: dict, calls: list[tuple[str, str]], folder: Path) -> list[str]:
    """What is wrong with the way in which an input was taken."""
    wrong = trespasses(answer, calls, folder)
    code, said = answer["code"], answer["said"]
    if code == 0 and not answer["either"]:
        wrong.append("was taken")
    if code == 1:
        wrong.append(said)
    if code == 2 and not (20 < len(said) < SENTENCE and said.count("\n") <= 25):
        wrong.append(f"{len(said)} characters in {said.count(chr(10)) + 1} lines: {said[:200]}")
    if code == 2 and ("root:" in said or "Traceback" in said or not said.encode("utf-8", "replace")):
        wrong.append(f"says {said[:300]}")
    if answer["MiB"] > MOST:
        wrong.append(f"took {answer['MiB']} MiB")
    return wrong


def check(folder: Path, every: int, offset: int = 0) -> list[dict]:
    answers, calls = read_strangers(folder, every, offset)
    run_command("rm", "-rf", folder / "inputs")  # Python cannot: some folders are 1,500 deep
    wrong = {f"{one['kind']}: {one['name']}": problems for one in answers
             if (problems := judged(one, calls[one["number"]], folder))}  # fmt: skip
    if every == 1:  # a sample is counted with all of them
        for kind in dict.fromkeys(one["kind"] for one in answers):
            names = {f"{kind}: {one['name']}" for one in answers if one["kind"] == kind}
            record_fault(f"a hostile or broken input: {kind}", len(names), len(names & wrong.keys()))
    assert wrong == {}, json.dumps(wrong, indent=1)
    return answers


def test_a_sample_of_what_strangers_may_send_is_refused_in_a_sentence_and_does_nothing(tmp_path):
    answers = check(tmp_path, every=9)
    assert len({one["kind"] for one in answers}) > 9 and len(answers) > 25


@pytest.mark.faults
@pytest.mark.timeout(1600)
def test_all_that_strangers_may_send_is_refused_in_a_sentence_and_does_nothing(tmp_path):
    answers = check(tmp_path, every=1)
    assert len(answers) >= 200
    assert sum(one["code"] == 2 for one in answers) >= 200


# One of each kind, as a user would meet it: flags before the place of the input.
LINES = {
    ("pictures", "pixels of rubbish.png"): ["--dataset", "image_folder", "--data-dir"],
    ("pictures", "400 million pixels in 50 KB.png"): ["--dataset", "image_folder", "--data-dir"],
    ("folder trees", "links in a circle"): ["--dataset", "image_folder", "--data-dir"],
    ("TFRecords", "a record of 4,294,967,296 bytes"): ["--dataset", "tfrecord", "--data-dir"],
    ("npz", "pixels of 10^12"): ["--dataset", "npz", "--data-dir"],
    ("HDF5", "a link into another file"): ["--dataset", "hdf5", "--data-dir"],
    ("CIFAR-10", "a pickle that runs"): ["--dataset", "cifar10", "--data-dir"],
    ("tables", "a million columns"): ["--dataset", "csv", "--data-dir"],
    ("settings", "aliases that grow ninefold eleven times"): ["--config"],
    ("weights", "a chunk of 280 MB"): ["--dataset", "npz", "--data-dir", "TINY", "--weights"],
    ("runs", "tensors far beyond the file"): ["--dataset", "npz", "--data-dir", "TINY", "--resume"],
}


@pytest.mark.faults
def test_the_command_line_refuses_one_of_each_kind_with_one_error_and_exit_code_2(tmp_path, tiny_data):
    import hostile

    makers = {(one.kind, one.name): one.make for one in hostile.corpus()}
    jobs = {}
    for number, (which, flags) in enumerate(LINES.items()):
        (home := tmp_path / str(number)).mkdir()
        place = makers[which](home) or home
        jobs[f"run{number}"] = [tiny_data if flag == "TINY" else flag for flag in flags] + [place, "--epochs", 1]
    codes = run_jobs(tmp_path / "jobs", jobs)
    errors = (tmp_path / "jobs" / "errors.txt").read_text().splitlines()
    assert set(codes.values()) == {2}, (codes, errors)
    assert len([line for line in errors if line.startswith("error: ")]) == len(jobs), errors
    assert "Traceback" not in errors and not list(tmp_path.glob("*/executed"))
