"""Effects of Jittor on its process: memory, compiled operators, signals."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from parity.cases.case import Case
from transfg_core.backend import load_backend
from transfg_core.errors import UserError

CASE = Case("process", model={"dropout": 0.1})
pytestmark = pytest.mark.only("jittor")


def kernels(twin) -> int:
    """Number of compiled operators in the cache, which other processes may share."""
    import jittor_utils

    return sum(1 for _ in Path(jittor_utils.cache_path, "jit").glob("*.so"))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_leaks_no_arrays_and_compiles_nothing_new(twin, checkpointing):
    """The rate changes at every update; as a constant it would need a new operator each time."""
    backend, batch = twin.backend(CASE), CASE.batches()[0]
    backend.model.grad_checkpointing = checkpointing
    live, compiled = [], []
    for update in range(30):
        backend.fetch(backend.train_step([batch], 0.001 * (update + 1)))
        live.append(twin.framework.liveness_info()["lived_vars"])
        compiled.append(kernels(twin))
    assert compiled[0] > 0
    assert len(set(live[3:])) == 1, live
    assert len(set(compiled[2:])) == 1, compiled


UPDATE = """
from parity.cases.case import Case
from transfg_core.backend import load_backend

case = Case("process")
backend = load_backend("jittor", case.config("{precision}"))
backend.model.grad_checkpointing = {checkpointing}
backend.fetch(backend.train_step([case.batches()[0]], 0.01))
"""


@pytest.mark.parametrize(
    ("precision", "checkpointing"), [("float32", False), ("float32", True), ("bfloat16", True)]
)
def test_no_operator_is_compiled_twice(twin, precision, checkpointing):
    """Two threads would write and read the same file at once; some runs failed so."""
    program = UPDATE.format(precision=precision, checkpointing=checkpointing)
    child = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"log_vprefix": "jit_compiler=10", "log_silent": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = child.stdout + child.stderr
    assert child.returncode == 0, said[-2000:]
    compiled = Counter(re.findall(r"Compile op (.+?)\x1b\[m", said, re.DOTALL))
    products = [name for name in compiled if name.startswith(("mkl_matmul", "cublas_matmul"))]
    assert any("Trans_a:T" in name for name in products)  # sums were replaced by a fast product
    assert not [operator for operator, times in compiled.items() if times > 1]


def test_evaluation_leaks_no_arrays(twin):
    backend, batch = twin.backend(CASE), CASE.batches()[0]
    live = []
    for _ in range(10):
        backend.fetch(backend.eval_step(batch.images))
        live.append(twin.framework.liveness_info()["lived_vars"])
    assert len(set(live[2:])) == 1, live


def test_signals_are_pythons(twin):
    """Python catches only SIGINT; the test reads the kernel's record, not Python's."""
    backend = twin.backend(CASE)
    backend.fetch(backend.train_step(CASE.batches()[:1], 0.01))
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    caught = int(
        next(row for row in status.splitlines() if row.startswith("SigCgt")).split()[1], 16
    )
    assert not caught >> (signal.SIGTERM - 1) & 1
    assert not caught >> (signal.SIGCHLD - 1) & 1
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_compile_is_refused(twin):
    config = Case("plain", model={"depth": 2}).config()
    run = config.run.model_copy(update={"compile": True})
    with pytest.raises(UserError, match="run.compile: .*leave it out"):
        load_backend("jittor", config.model_copy(update={"run": run}))


def test_operators_are_compiled_with_precompiled_headers(twin):
    import jittor as jt

    if jt.flags.use_cuda or jt.flags.cc_type != "g++":
        pytest.skip("only for operators that g++ compiles for the CPU")
    import jittor_utils

    precompiled = twin.module("setup.precompiled")
    (jt.array([1.0, 2.0]) * 3).sync()
    source = max(Path(jittor_utils.cache_path, "jit").glob("*_op.cc"), key=os.path.getmtime)
    header = re.match(r' -include"(.+?)"', jt.flags.cc_flags)[1]
    listed = precompiled.compiler(jt.flags.cc_path, jt.flags.cc_flags)
    listed += ["-H", "-S", str(source), "-o", os.devnull]
    said = subprocess.run(listed, check=True, capture_output=True, text=True).stderr
    assert said.startswith(f"! {header}.gch\n")  # `!`: used, `x`: not used


def test_operators_are_compiled_for_one_name_of_the_interpreter(twin, monkeypatch, tmp_path):
    """The name is in Jittor's cache key: `python -m` can use the operators of `transfg`."""
    start = twin.module("setup.start")
    versioned = f"python3.{sys.version_info.minor}"
    (tmp_path / versioned).symlink_to(sys.executable)
    for name in ("python", "python3", versioned):
        if name != versioned:
            (tmp_path / name).symlink_to(versioned)
        monkeypatch.setattr(sys, "executable", str(tmp_path / name))
        with start.canonical_interpreter():
            assert sys.executable == str(tmp_path / versioned)
        assert sys.executable == str(tmp_path / name)
    # a different interpreter in the same folder keeps its name
    (tmp_path / versioned).unlink()
    (tmp_path / versioned).touch()
    (tmp_path / "python").unlink()
    (tmp_path / "python").symlink_to("/bin/sh")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with start.canonical_interpreter():
        assert sys.executable == str(tmp_path / "python")
