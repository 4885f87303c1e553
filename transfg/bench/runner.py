"""Run workers by turns, one step each, and collect what they tell.

A processor is shared with whatever else runs, and its clock changes: only what is measured in the
same minute can be compared. So every subject has a process of its own, all are started first, and
then each round gives every one of them one step, in an order that alternates.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from transfg.bench.subject import Subject
from transfg.bench.worker import OUT_OF_MEMORY
from transfg_core.config.sections import Config
from transfg_core.machine import child_environment

LAST_WORDS = 30  # seconds that a worker which closes its pipe has left to end


@dataclass
class Measurement:
    """What one subject did with one batch size; times in seconds, memory in bytes."""

    subject: str
    backend: str
    method: str
    work: str
    batch: int
    config: dict[str, Any]
    started: float = 0.0  # from nothing to the first step
    first: float = 0.0  # the first step, in which operators are compiled
    seconds: list[float] = field(default_factory=list)
    base: int | None = None  # before the first step; None where the device does not tell
    peak: int | None = None
    device: dict[str, Any] = field(default_factory=dict)
    failed: str = ""  # why there is nothing, if so


class Worker:
    """A child process that does one step whenever it is asked."""

    def __init__(
        self, subject: Subject, work: str, config: Config, turn: int, threads: int | None
    ) -> None:
        settings = config.model_dump(mode="json")
        self.result = Measurement(
            subject.label, subject.backend, subject.method, work, config.train.batch_size, settings
        )
        answers, theirs = os.pipe()
        job = {"backend": subject.backend, "method": subject.method, "work": work, "turn": turn}
        job |= {"config": settings, "answers": theirs, "began": time.monotonic()}
        job |= {"reads": subject.reads or work == "input"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "transfg.bench.worker", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=2,  # whatever a framework prints, on standard error
            pass_fds=[theirs],
            text=True,
            env=child_environment(threads),
        )
        os.close(theirs)
        self.answers = os.fdopen(answers, encoding="utf-8")

    def start(self) -> None:
        """Wait until the first step is done."""
        facts = self.read()
        for name, value in facts.items():
            setattr(self.result, name, value)

    def read(self) -> dict[str, Any]:
        """One answer; nothing once the process has ended."""
        line = self.answers.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        try:
            status = self.process.wait(timeout=LAST_WORDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.result.failed = {
            2: "refused (see above)",
            OUT_OF_MEMORY: "out of memory",
            -9: "killed, most likely for want of memory",
        }.get(status, f"ended with status {status}")
        return {}

    def ask(self, word: str) -> dict[str, Any]:
        """The answer to a word; nothing from a process that has ended."""
        if self.result.failed:
            return {}
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        return self.read()

    def step(self, keep: bool) -> None:
        """One step; its time is kept after the warm-up."""
        answer = self.ask("go")
        if keep and answer:
            self.result.seconds.append(answer["seconds"])

    def end(self) -> None:
        """Ask for the peak and let the process go."""
        self.result.peak = self.ask("end").get("peak")
        self.kill()

    def kill(self) -> None:
        """End the process whatever it does."""
        self.process.kill()
        with suppress(BrokenPipeError):
            self.process.communicate()
        self.answers.close()


def measure(
    subjects: Sequence[Subject],
    work: str,
    configs: Sequence[Config],
    rounds: int,
    warmup: int,
    turn: int = 1,
    threads: int | None = None,
) -> list[Measurement]:
    """One batch size: all subjects by turns, of `turn` steps each.

    Of more than one step, the first of a turn is not timed.
    """
    workers: list[Worker] = []
    try:
        for subject, config in zip(subjects, configs, strict=True):
            print(f"{subject.label}: {work}, batch {config.train.batch_size}", file=sys.stderr)
            worker = Worker(subject, work, config, turn, threads)
            workers.append(worker)
            worker.start()  # one after the other: two that compile would share the processor
        for number in range(warmup + rounds):
            for worker in workers if number % 2 == 0 else reversed(workers):
                worker.step(keep=number >= warmup)
        for worker in workers:
            worker.end()
    finally:
        for worker in workers:
            worker.kill()
    return [worker.result for worker in workers]
