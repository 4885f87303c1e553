"""What a worker process does first; it needs only the standard library, so that it runs soon."""

import multiprocessing
import os
import signal
import threading

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def init_worker(worker: int, workers: int) -> None:
    """Ignore the signals that stop a run, and end with the parent process."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()  # waits for the end of a pipe that the parent holds open
    os.kill(os.getpid(), signal.SIGKILL)
