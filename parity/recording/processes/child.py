"""A child process of one side and precision, which answers requests over pipes.

Of this program the child sees the package `parity` and nothing beside it: its other packages are
those of the side's own environment.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from parity.errors import ParityError
from parity.recording.adapter import RestartNeededError
from parity.recording.processes.waiting import waiting

PACKAGE = Path(__file__).resolve().parents[2]
# Run by the side's interpreter. A folder on its path would also bring what lies beside `parity`,
# such as another NumPy. It may be an old Python, so this is code for any Python 3.
START = """
import sys
if sys.version_info < (3, 11):
    sys.exit("parity needs Python 3.11 or newer; %s is Python %s"
             % (sys.executable, sys.version.split()[0]))
import importlib.util, runpy
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "parity":
            return importlib.util.spec_from_file_location(
                name, folder + "/__init__.py", submodule_search_locations=[folder])
sys.meta_path.insert(0, Finder)
_, folder, module = sys.argv
sys.path[:] = [path for path in sys.path if path]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
LAST_LINES = 8  # of a log, in the message about a process that ended
WORKER = "parity.recording.processes.worker"


class Child:
    """`parity.recording.processes.worker` in a side's environment; `log` gets what it prints.

    `module`: another program of the same protocol. `variables`: more of its environment.
    `say` gets a line now and then while an answer takes long.

    Raises:
        ParityError: the interpreter cannot be started.
    """

    def __init__(
        self,
        python: Path,
        folder: Path,
        log: Path,
        label: str,
        module: str = WORKER,
        variables: Mapping[str, str] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.label, self.log, self.say = label, log, say
        # Passive: threads that wait for work leave the processor to the other processes.
        environment = {"OMP_WAIT_POLICY": "passive", **os.environ, **(variables or {})}
        try:
            with open(log, "wb") as file:
                self.process = subprocess.Popen(
                    [str(python), "-c", START, str(PACKAGE), module],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    cwd=folder,
                    env=environment,
                    text=True,
                    encoding="utf-8",
                    process_group=0,  # its own, so that `kill` also ends what it has started
                )
        except OSError as error:
            raise ParityError(
                f"{label}: cannot start {python}: {error.strerror}; give this side's interpreter: "
                "`python=` in the pair file, or --python SIDE=PATH"
            ) from error

    def ask(self, action: str, what: str = "", **options: Any) -> dict[str, Any]:
        """The answer to one request. `what`: what it does, for the lines of `say`.

        Raises:
            RestartNeededError: the framework must be started again, in a new process.
            ParityError: the user's code failed in the child, or the child ended.
            RuntimeError: our code failed in the child; the text is its traceback.
        """
        assert self.process.stdin and self.process.stdout
        line = ""
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"do": action, **options}) + "\n")
            self.process.stdin.flush()
            text = f"{self.label}: {what or action}"
            with waiting(self.say, text, self.log) if self.say else nullcontext():
                line = self.process.stdout.readline()
        if not line:
            raise ParityError(self._ended())
        answer = json.loads(line)
        if "error" in answer:
            logged = self.log.stat().st_size > 0
            more = f"; the whole error is in {self.log}" if logged else ""
            kind = RestartNeededError if answer["restart"] else ParityError
            raise kind(f"{answer['error']}{more}")
        if "failure" in answer:
            raise RuntimeError(f"{self.label}: a bug of parity's recorder:\n{answer['failure']}")
        found: dict[str, Any] = answer["answer"]
        return found

    def _ended(self) -> str:
        code = self.process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        text = self.log.read_text(encoding="utf-8", errors="replace").rstrip()
        last = "\n".join(f"    {line}" for line in text.split("\n")[-LAST_LINES:])
        return f"{self.label}: its process {how}; the last lines of {self.log}:\n{last}"

    def close(self) -> None:
        """End the process; at most a few seconds for its own clean end."""
        if self.process.stdin:
            with suppress(OSError):
                self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._kill_group()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def kill(self) -> None:
        """End the process at once, and those that it has started, such as compilers."""
        self._kill_group()
        self.close()

    def _kill_group(self) -> None:
        if self.process.poll() is None:  # else its number may be another's by now
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
