"""A demo in a process of its own, and clients that ask it."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfg_core.machine import child_environment

START = 900  # seconds; Jittor compiles at its first start


@dataclass
class Sent:
    """One request: which file, the answer, and how long it took."""

    name: str
    answer: dict[str, Any]
    seconds: float


class Demo:
    """`transfg demo` on a free port, with its output in a file."""

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        seconds: float = START,
    ) -> None:
        command = [sys.executable, "-m", "transfg", "demo", *arguments, "--port", "0"]
        self.log = tempfile.TemporaryFile("a+")  # it writes at the end, wherever we read
        env = child_environment() | dict(environment or {})
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=env
        )
        assert self.process.stdout
        hanging = threading.Timer(seconds, self.process.kill)
        hanging.start()
        line = self.process.stdout.readline()
        hanging.cancel()
        found = re.search(r"http://\S+", line)
        if not found:
            said = self.output()
            self.stop(seconds=5)
            raise RuntimeError(f"the demo did not start: {said}")
        self.address = found[0]

    def output(self) -> str:
        """What it printed on standard error."""
        self.log.seek(0)
        return self.log.read()

    def health(self) -> dict[str, Any]:
        """What /health says."""
        with urllib.request.urlopen(f"{self.address}/health", timeout=20) as reply:
            said: dict[str, Any] = json.load(reply)
        return said

    def memory(self) -> dict[str, int]:
        """Bytes: of the server in use and resident, of each worker resident."""
        said = self.health()
        workers = {name: resident(state["process"]) for name, state in said["workers"].items()}
        server = {"server": said["memory"]["in_use"]} if said["memory"]["in_use"] else {}
        return server | {"server, resident": said["memory"]["resident"]} | workers

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal and wait for the end; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout=seconds)
        finally:
            self.process.kill()
            self.process.wait()
            self.log.close()
            if self.process.stdout:
                self.process.stdout.close()


def resident(process: int | None) -> int:
    """Resident memory of a process in bytes; 0 if there is none."""
    if process is None:
        return 0
    text = Path(f"/proc/{process}/statm").read_text(encoding="ascii")
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def data_address(content: bytes) -> str:
    """A file as the text that the demo's API takes."""
    return "data:application/octet-stream;base64," + base64.b64encode(content).decode()


@dataclass
class Clients:
    """Several clients of gradio, each with its own session, which ask at the same time."""

    address: str
    count: int
    options: dict[str, Any] = field(default_factory=dict)

    def ask(self, files: Sequence[tuple[str, bytes]]) -> list[Sent]:
        """Send all files, divided among the clients; return the answers in their order."""
        from gradio_client import Client

        clients = [Client(self.address, verbose=False) for _ in range(self.count)]

        def one(client: Client, name: str, content: bytes) -> Sent:
            began = time.monotonic()
            answer = client.predict(
                image=data_address(content), api_name="/predict", **self.options
            )
            return Sent(name, answer, time.monotonic() - began)

        def share(number: int) -> list[Sent]:
            return [one(clients[number], *file) for file in files[number :: self.count]]

        with ThreadPoolExecutor(self.count) as pool:
            shares = list(pool.map(share, range(self.count)))
        for client in clients:
            client.close()
        found = [None] * len(files)
        for number, sent in enumerate(shares):
            found[number :: self.count] = sent  # type: ignore[assignment]
        return found  # type: ignore[return-value]
