"""The child process of one side and precision: it answers requests until its input ends.

One JSON request is a line on the standard input; child.py starts the process.

Answers are JSON lines on what was the standard output. Whatever frameworks print goes to the
standard error, which is the side's log.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from parity.errors import ParityError

if TYPE_CHECKING:  # these need NumPy, which the environment may lack
    from parity.recording.side import RecordedSide


class Worker:
    """The requests, each a method; `start` comes first."""

    def __init__(self) -> None:
        self.side: RecordedSide | None = None

    def start(self, pair: str, side: str, precision: str, label: str) -> dict[str, Any]:
        """Build one side of a pair.

        Raises:
            ParityError: NumPy is missing here, or as in `RecordedSide`.
        """
        check_numpy(label)
        from parity.recording.side import RecordedSide

        self.side = RecordedSide(pair, side, precision)
        return self.side.describe()

    def load(
        self,
        weights: str,
        names: dict[str, str],
        inputs: str,
        state: str | None,
        layouts: dict[str, str],
        built: str | None,
    ) -> dict[str, Any]:
        """Load weights (`names`: own name -> name in the file); write the state as read back.

        A name in the file may also be a part of one, or several in a row (`with_parts`).

        `built`: a file of such a state, which is loaded as it is.
        """
        from parity.matching.declared import with_parts
        from parity.recording.side import load_arrays, save_arrays, subject_facts

        assert self.side
        stored = load_arrays(weights)
        parts = with_parts(stored, names.values())
        own = {name: parts[theirs] for name, theirs in names.items()}
        arrays = load_arrays(inputs)
        facts = subject_facts(self.side.pair, stored, arrays)
        built_arrays = load_arrays(built) if built else {}
        loaded = self.side.load(own, arrays, facts, layouts, built_arrays)
        if state:
            save_arrays(Path(state), self.side.weights)
        return {"state": loaded}

    def trial(self, call: bool) -> dict[str, Any]:
        """Compare inputs and arguments, and call the model once, to find mistakes early."""
        assert self.side
        return {"notes": self.side.trial(call)}

    def record(self, **options: Any) -> dict[str, Any]:
        """Record one trace."""
        assert self.side
        return self.side.record(**options)


def check_numpy(label: str) -> None:
    """Refuse an environment without NumPy.

    Raises:
        ParityError: NumPy is missing or does not start; the text has the command that mends it.
    """
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        wanted = '"numpy<2"' if "(jittor)" in label else "numpy"
        text = str(error).strip().split("\n")[0]
        raise ParityError(
            f"{label}: NumPy is missing in its environment ({text}); run: "
            f"{sys.executable} -m pip install {wanted}"
        ) from error


def end_with(parent: int) -> None:
    """End this process, and those that it has started, once its parent has ended.

    A parent that was killed cannot do so itself.
    """
    while os.getppid() == parent:
        time.sleep(1)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def main(worker: Any = None) -> int:
    """Answer requests from stdin until it ends, by the methods of `worker` (default: a Worker)."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    worker = worker or Worker()
    Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    for line in requests:
        request = json.loads(line)
        try:
            answer = {"answer": getattr(worker, request.pop("do"))(**request)}
        except ParityError as error:
            restart = type(error).__name__ == "RestartNeededError"
            answer = {"error": str(error), "restart": restart}
        except Exception:  # a bug of the recorder: the parent shows its traceback
            answer = {"failure": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
