"""A child process of one side and precision, which answers requests over pipes."""

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from parity.errors import ParityError

ROOT = Path(__file__).resolve().parents[2]  # the folder of this package, for the child's imports
LAST_LINES = 8  # of a log, in the message about a process that ended


WORKER = "parity.recording.worker"


class Child:
    """`python -m parity.recording.worker` in a side's environment; `log` gets what it prints.

    `module`: another program of the same protocol. `variables`: more of its environment.

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
    ) -> None:
        self.label, self.log = label, log
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        # Passive: threads that wait for work leave the processor to the other processes.
        environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}
        environment |= variables or {}
        try:
            with open(log, "wb") as file:
                self.process = subprocess.Popen(
                    [str(python), "-m", module],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    cwd=folder,
                    env=environment,
                    text=True,
                    encoding="utf-8",
                )
        except OSError as error:
            raise ParityError(
                f"{label}: cannot start {python}: {error}; give this side's interpreter: "
                "`python=` in the pair file, or --python SIDE=PATH"
            ) from error

    def ask(self, action: str, **options: Any) -> dict[str, Any]:
        """The answer to one request.

        Raises:
            ParityError: the user's code failed in the child, or the child ended.
            RuntimeError: our code failed in the child; the text is its traceback.
        """
        assert self.process.stdin and self.process.stdout
        line = ""
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"do": action, **options}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if not line:
            raise ParityError(self._ended())
        answer = json.loads(line)
        if "error" in answer:
            raise ParityError(f"{answer['error']}; the whole error is in {self.log}")
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
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.close()
