"""Lines that say what a child process does while its answer takes long."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

EVERY = 15.0  # seconds between two lines of one process
TAIL = 4096  # bytes at the end of a log that are searched
# What a terminal would show of it: colours and movements of the cursor are left out.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
OPERATORS = re.compile(r"Compiling Operators\((\d+/\d+)\)")
ITSELF = re.compile(r"Jittor compiles itself for this machine into (.+): some minutes")


@contextmanager
def waiting(say: Callable[[str], None], what: str, log: Path) -> Iterator[None]:
    """Within: `say` gets a line every 15 s, such as `candidate (jittor): pass float32, 75 s; ...`.

    The end of the line is what the process's log says last about compiling.
    """
    started, done = time.monotonic(), Event()

    def lines() -> None:
        while not done.wait(EVERY):
            compiling = last_of_compiling(log)
            seconds = f"{time.monotonic() - started:.0f} s"
            say(f"{what}, {seconds}" + (f"; {compiling}" if compiling else ""))

    thread = Thread(target=lines, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def last_of_compiling(log: Path) -> str:
    """What the last line of a log that speaks of compiling says; empty if there is none."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - TAIL, 0))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = re.split(r"[\r\n]+", CONTROL.sub("", text))
    said = [line.strip() for line in lines if "ompil" in line]
    if not said:
        return ""
    operators, itself = OPERATORS.findall(said[-1]), ITSELF.search(said[-1])
    if operators:
        return f"Compiling Operators {operators[-1]}"
    if itself:
        count = sum(1 for _ in Path(itself[1]).rglob("*.o"))
        return f"Jittor compiles itself, once: {count} object files"
    return said[-1][:100]
