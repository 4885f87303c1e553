"""The commands of Slurm on one machine, as far as submitit calls them.

Each is a link to this file with the command's name; jobs lie in the folder of $FAKE_SLURM: their
script, the number of their process group, and a file `done` after their end.
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scancel")


def install(folder):
    """Make the commands in `folder`; return the environment that finds them."""
    (folder / "bin").mkdir(parents=True)
    for name in COMMANDS:
        script = folder / "bin" / name
        script.write_text(f"#!{sys.executable}\n" + Path(__file__).read_text())
        script.chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    return {"PATH": path, "FAKE_SLURM": str(folder)}


def sbatch(home, arguments):
    """Start a script in a process group of its own."""
    number = len(list(home.glob("job-*"))) + 1
    job = home / f"job-{number}"
    job.mkdir()
    shutil.copy(arguments[-1], job / "script.sh")
    names = ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_JOB_NUM_NODES")
    zeros = dict.fromkeys(("SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID"), "0")
    values = dict(zip(names, (str(number), "1", "1"), strict=True)) | zeros
    command = f"bash '{job}/script.sh'; touch '{job}/done'"
    process = subprocess.Popen(
        ["bash", "-c", command],
        env=os.environ | values | {"SLURM_JOB_NODELIST": "here"},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (job / "group").write_text(str(process.pid))
    print(f"Submitted batch job {number}")


def srun(home, arguments):
    """Become the command behind the options, with its output in the file that they name."""
    start = next(place for place, word in enumerate(arguments) if word.endswith(("python", "-u")))
    start -= arguments[start] == "-u"
    output = arguments[arguments.index("--output") + 1]
    output = output.replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", "0")
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.execvp(arguments[start], arguments[start:])


def sacct(home, arguments):
    """The state of every job."""
    print("JobID|State|NodeList")
    for job in home.glob("job-*"):
        state = "RUNNING"
        if (job / "cancelled").exists():
            state = "CANCELLED"
        elif (job / "done").exists():
            state = "COMPLETED"
        print(f"{job.name.removeprefix('job-')}|{state}|here")


def scancel(home, arguments):
    """SIGTERM for every process of a job but the shell that waits for the others."""
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if f"SLURM_JOB_ID={arguments[0]}".encode() in environment and name != "bash":
                os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    globals()[Path(sys.argv[0]).name](Path(os.environ["FAKE_SLURM"]), sys.argv[1:])
