"""`transfg doctor`: a check of this machine, with an exact command for everything missing.

Each backend is tried in a separate process, because a broken installation may raise, crash or hang;
the other backends are still checked.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from transfg.core_packages import CORE
from transfg_core.backend import BACKENDS
from transfg_core.machine import child_environment, cpu_name, install_command, usable_cpus

TIMEOUT = 1800.0  # seconds for one backend: Jittor's first import compiles for minutes
MARK = "transfg-doctor "  # the first word of the line with the probe's answer
BUILDING = "Jittor compiles itself"  # the first words of the Jittor backend's note on a long build
TAIL = 6  # an error shows this many of its last lines

# module -> its package, and the extra of this project that installs it
OPTIONAL = {
    "matplotlib": ("matplotlib", "report"),
    "jinja2": ("Jinja2", "report"),
    "tensorboardX": ("tensorboardX", "report"),
    "gradio": ("gradio", "demo"),
    "onnx": ("onnx", "onnx"),
    "onnxscript": ("onnxscript", "onnx"),
    "onnxruntime": ("onnxruntime", "onnx"),
}

# One matrix product with its gradient, then one update of a model of two blocks.
PROBE = """
import json, sys
import numpy as np
from transfg_core.backend import Batch, load_backend
from transfg_core.config.loading import load_config
from transfg_core.errors import UserError
from transfg_core.params.initial import initial_params
config = load_config(None, [
    "model.depth=2", "model.width=8", "model.heads=2", "model.mlp=16", "model.classes=2",
    "data.crop=16", "optim.warmup=0", "train.steps=1",
])
try:
    backend = load_backend(sys.argv[1], config)
except UserError as error:
    sys.exit(str(error))
backend.load_params(initial_params(config.model, config.data.crop, 0))
images = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
handle = backend.train_step([Batch(images, np.array([0, 1]))], 0.1)
values = {name: float(value) for name, value in backend.fetch(handle).items()}
if not np.isfinite(list(values.values())).all():
    sys.exit(f"expected finite numbers of one update, found {values}")
print("\\n" + sys.argv[2] + json.dumps(backend.device_info()), flush=True)
"""


@dataclass(frozen=True)
class Finding:
    """The result for one backend: its `device_info()`, or the reason of its failure."""

    name: str
    info: dict[str, Any] | None
    reason: str = ""


def doctor() -> None:
    """Show which backends work here, and the exact command for everything missing."""
    raise typer.Exit(examine())


def examine(timeout: float = TIMEOUT) -> int:
    """Print what is installed and what is missing; return 0 if every backend works, else 1."""
    section("core", core_lines())
    section("machine", machine_lines())
    findings = []
    for name in BACKENDS:
        finding = probe(name, timeout)
        section(f"backend {name}", backend_lines(finding))
        findings.append(finding)
    broken = [finding.name for finding in findings if finding.info is None]
    print(f"not working: {', '.join(broken)}" if broken else "every backend works")
    return 1 if broken else 0


def section(title: str, lines: list[str]) -> None:
    """Print a title and its lines without delay, because the next section may take minutes."""
    print("\n  ".join([title, *lines]), flush=True)


def probe(name: str, timeout: float) -> Finding:
    """Run one update on a backend in a child process; its progress goes to standard error."""
    command = [sys.executable, "-c", PROBE, name, MARK]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            env=child_environment(),
        )  # fmt: skip
        try:
            status = wait(child, timeout, err.fileno())
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # also kills the compilers that it started
                child.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return judge(name, status, texts[0], texts[1], timeout)


def wait(child: "subprocess.Popen[bytes]", timeout: float, messages: int) -> int | None:
    """Wait for a child and return its exit status, or None after `timeout` seconds.

    The child's note about a long build is printed once. `messages` is the file descriptor of the
    child's standard error.
    """
    shown = False
    until = time.monotonic() + timeout
    while (left := until - time.monotonic()) > 0:
        try:
            return child.wait(min(1.0, left))
        except subprocess.TimeoutExpired:
            lines = os.pread(messages, 2**16, 0).decode(errors="replace").splitlines()
        notes = [line for line in lines if line.startswith(BUILDING)]
        if notes and not shown:
            print(notes[0], file=sys.stderr, flush=True)
            shown = True
    return None


def judge(name: str, status: int | None, out: str, err: str, timeout: float) -> Finding:
    """Turn the probe's exit status and output into a finding."""
    answers = [line for line in out.splitlines() if line.startswith(MARK)]
    if status == 0 and answers:
        return Finding(name, json.loads(answers[-1].removeprefix(MARK)))
    if status is None:
        end = f"did not answer within {timeout:.0f} s"
    elif status < 0:
        end = f"was killed by signal {-status} ({signal_name(-status)})"
    elif status == 0:
        end = "ended with status 0 before it had computed anything"
    else:
        end = ""
    last_lines = [line for line in err.splitlines() if line.strip()][-TAIL:]
    return Finding(name, None, "\n  ".join([f"the probe {end}"] * bool(end) + last_lines))


def signal_name(number: int) -> str:
    """The description of a signal, such as `segmentation fault`."""
    return (signal.strsignal(number) or "unknown").lower()


def backend_lines(finding: Finding) -> list[str]:
    """Lines that say whether the backend works, with its details or the reason."""
    if finding.info is None:
        extra = finding.name
        remedy = [] if "run: " in finding.reason else [f"run: {install_command(extra)}"]
        return ["works: no", f"reason: {finding.reason}", *remedy]
    info = finding.info
    cuda = f"found, {info['cuda']}" if info.get("cuda") else "not found, or switched off"
    lines = ["works: yes", f"version: {info.get('version')}", f"device: {info.get('device')}"]
    lines += [f"CUDA: {cuda}", f"threads: {info.get('threads')}"]
    if info.get("cache"):
        lines.append(f"cache: {info['cache']} ({mebibytes(folder_size(Path(info['cache'])))})")
    return lines


def core_lines() -> list[str]:
    """Versions of the required packages and of the optional ones."""
    lines = [f"python: {platform.python_version()} ({sys.executable})"]
    for package in CORE.values():
        lines.append(f"{package}: {package_version(package) or missing('core')}")
    numpy = package_version("numpy") or ""
    if numpy.partition(".")[0].isdigit() and int(numpy.partition(".")[0]) >= 2:
        lines.append(
            "warning: Jittor cannot run under numpy 2 or later; run: pip install 'numpy<2'"
        )
    for module, (package, extra) in OPTIONAL.items():
        found = package_version(package) if find_spec(module) else None
        lines.append(f"{package} (optional): {found or missing(extra)}")
    return lines


def missing(extra: str) -> str:
    """The text for a missing package, with the command that installs it."""
    return f"missing; run: {install_command(extra).replace('[core]', '')}"


def package_version(package: str) -> str | None:
    """Version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine_lines() -> list[str]:
    """Processor, memory, disk, and the compiler and headers that Jittor needs."""
    compiler = os.environ.get("cc_path", "g++")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    python = ".".join(map(str, sys.version_info[:2]))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [
        f"processor: {cpu_name()}, {usable_cpus()} cores",
        f"memory: {mebibytes(memory)}",
        f"free disk at {Path.cwd()}: {mebibytes(shutil.disk_usage(Path.cwd()).free)}",
        f"C++ compiler: {shutil.which(compiler) or 'missing; run: apt-get install g++'}",
        "Python headers: "
        + (
            str(headers)
            if headers.is_file()
            else f"missing; run: apt-get install python{python}-dev"
        ),
    ]


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile do not count."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return size


def mebibytes(count: int) -> str:
    """A number of bytes as text in MiB."""
    return f"{count / 2**20:,.0f} MiB"
