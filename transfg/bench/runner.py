"""Run workers in turn and collect their measurements.

Other programs share the processor, and its clock changes, so only measurements from the same minute
can be compared. Therefore every subject has its own process, and all processes start first. Then
each round gives every subject one turn, in alternating order.
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

LAST_WORDS = 30  # seconds for a worker to exit after it has closed its pipe


@dataclass
class Measurement:
    """Time in seconds and memory in bytes of one subject at one batch size.

    A subject is a backend, a method and their settings.
    """

    subject: str
    backend: str
    method: str
    work: str
    batch: int
    config: dict[str, Any]
    started: float = 0.0  # from the start of the process to the first step
    first: float = 0.0  # the first step, which compiles operators
    seconds: list[float] = field(default_factory=list)  # per step, for each timed round
    cpu: list[float] = field(default_factory=list)  # the same in processor time, of all processes
    base: int | None = None  # memory before the first step; None if the device does not report it
    peak: int | None = None
    device: dict[str, Any] = field(default_factory=dict)
    failed: str = ""  # the reason of a failure


class Worker:
    """A child process that does one turn at each request."""

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
            stdout=2,  # send the output of frameworks to standard error
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
        """One answer; empty if the process has ended."""
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
            -9: "killed, most likely out of memory",
        }.get(status, f"ended with status {status}")
        return {}

    def ask(self, word: str) -> dict[str, Any]:
        """The answer to a word; empty if the process has ended."""
        if self.result.failed:
            return {}
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        return self.read()

    def step(self, keep: bool) -> None:
        """Do one turn; keep its time unless it belongs to the warm-up."""
        answer = self.ask("go")
        if keep and answer:
            self.result.seconds.append(answer["seconds"])
            self.result.cpu.append(answer["cpu"])

    def end(self) -> None:
        """Ask for the peak memory and end the process."""
        self.result.peak = self.ask("end").get("peak")
        self.kill()

    def kill(self) -> None:
        """End the process at once."""
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
    """Measure all subjects at one batch size, in turns of `turn` steps.

    If a turn has more than one step, its first step is not timed.
    """
    workers: list[Worker] = []
    try:
        for subject, config in zip(subjects, configs, strict=True):
            print(f"{subject.label}: {work}, batch {config.train.batch_size}", file=sys.stderr)
            worker = Worker(subject, work, config, turn, threads)
            workers.append(worker)
            worker.start()  # one after another, because compiling workers would share the processor
        for number in range(warmup + rounds):
            for worker in workers if number % 2 == 0 else reversed(workers):
                worker.step(keep=number >= warmup)
        for worker in workers:
            worker.end()
    finally:
        for worker in workers:
            worker.kill()
    return [worker.result for worker in workers]
