"""Worker processes when a run is stopped: they obey its process alone, and do not outlive it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]

# `python SCRIPT PID-FILE IMAGE...`: reads batches until the second line of standard input
SCRIPT = """
import signal, sys
import numpy as np
from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import Samples
from transfg_core.data.loader import TrainStream

def main():
    seen = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: seen.append(number))
    paths = tuple(sys.argv[1:])
    samples = Samples(paths, np.zeros(len(paths), np.int64), paths)
    stream = TrainStream(samples, DataConfig(crop=(16, 16), workers=2, threads=1), 8, 0)
    print("start", flush=True)
    for _ in range(60):
        next(stream)
        print("batch", flush=True)
        sys.stdin.readline()
        if seen:
            break
    next(stream)
    stream.close()
    print("seen", *seen, flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def reader(tmp_path):
    """Starts the script in a process group of its own."""
    script = tmp_path / "reader.py"
    script.write_text(SCRIPT)
    paths = [str(tmp_path / f"{number}.png") for number in range(4)]
    for path in paths:
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)
    started = []

    def start():
        started.append(
            subprocess.Popen(
                [sys.executable, script, *paths],
                text=True,
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        )
        return started[-1]

    yield start
    for process in started:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def members(group):
    """Processes of a process group that are not zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has ended
            continue
        if int(process_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def shared_memory(group):
    """Files in /dev/shm that processes of the group have mapped: inode -> name."""
    maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in members(group))
    inodes = {int(line.split()[4]) for line in maps.splitlines() if "/dev/shm/" in line}
    with os.scandir("/dev/shm") as entries:
        return {entry.inode(): entry.name for entry in entries if entry.inode() in inodes}


def assert_ended(group):
    """No process of the group is left, or none after 2 seconds."""
    until = time.monotonic() + 2
    while members(group) and time.monotonic() < until:
        time.sleep(0.02)
    assert members(group) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["while they start", "while they read"])
def test_a_signal_to_the_group_leaves_the_workers_alone(reader, number, moment):
    """As `timeout`, schedulers and Ctrl-C send it: the parent still gets its batches."""
    process = reader()
    assert process.stdout.readline() == "start\n"
    if moment == "while they start":
        for _ in range(8):  # the first batch takes longer than this
            os.killpg(process.pid, number)
            time.sleep(0.1)
    assert process.stdout.readline() == "batch\n"
    shared = shared_memory(process.pid)
    assert shared and {name[:7] for name in shared.values()} == {"sem.mp-"}
    os.killpg(process.pid, number)
    out, errors = process.communicate("\n" * 60, timeout=60)
    assert process.returncode == 0, errors
    assert set(out.splitlines()[-1].split()[1:]) == {str(int(number))}
    said = [line for line in errors.splitlines() if "jax profiler" not in line]  # grain's greeting
    assert said == []
    assert_ended(process.pid)
    assert not shared.keys() & {entry.inode() for entry in os.scandir("/dev/shm")}


def test_batches_do_not_travel_in_shared_memory(reader):
    """A killed process would leave them there. The queues' semaphores have 32 bytes each."""
    process = reader()
    while process.stdout.readline() != "batch\n":
        pass
    time.sleep(0.5)  # the workers read ahead
    assert {name[:7] for name in shared_memory(process.pid).values()} == {"sem.mp-"}


def test_workers_end_with_a_killed_parent(reader):
    process = reader()
    while process.stdout.readline() != "batch\n":
        pass
    assert len(members(process.pid)) == 4  # and multiprocessing's resource tracker
    process.kill()
    assert_ended(process.pid)
