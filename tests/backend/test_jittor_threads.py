"""Jittor's threads compile operators side by side, and the heap stays whole.

The child compiles hundreds of new products of the same arrays. Its compiler is a script that
copies what a real one made in the first round, so that the threads are busy with Jittor's own work.
Without the header of `setup/include/opt/tuner`, it crashed within 100 rounds in each of four runs
(docs/jittor.md, "Caches").
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.only("jittor")

ROUNDS = 150
# Called as Jittor calls its asm_tuner.py. A source differs from round to round in one macro.
COMPILER = """#!/bin/sh
for word in "$@"; do
  case $word in *_op.cc) [ -n "$source" ] || source=$word;; *_op.so) library=$word;; esac
done
known={folder}/$(grep -v ROUND "$source" | sha1sum | cut -c1-40)
if [ ! -f "$known" ]; then
  {python} "$@" || exit 1
  cp "$library" "$known.$$" && mv "$known.$$" "$known"
fi
cp "$known" "$library"
"""
CHILD = """
import itertools, sys
from pathlib import Path
from transfg_jt import runtime
runtime.prepare()
import numpy as np
import jittor as jt
from transfg_jt.ops.bfloat16 import product
folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
(folder / "cache/jit").mkdir(parents=True)
jt.flags.cache_path = str(folder / "cache")
jt.flags.python_path = str(folder / "compiler")
values = np.arange(64, dtype=np.float32).reshape(8, 8)
left, right = jt.array(values), jt.array(values.T)
jt.sync_all()
forms = list(itertools.product([(False, False), (False, True), (True, False)], [right, left]))
for number in range(rounds):
    with jt.flag_scope(compile_options={f"FLAGS: -DROUND{number} ": 1}):
        results = [product(left, other, *transposed) for transposed, other in forms]
        jt.sync(results)  # together, so that several threads compile
for result, (transposed, other) in zip(results, forms):
    a, b = (x.T if turned else x for x, turned in zip((values, other.numpy()), transposed))
    assert np.array_equal(result.numpy(), a @ b), transposed  # whole numbers: no rounding
print(len(list((folder / "cache/jit").glob("*.so"))), "operators")
"""


def test_jittor_is_built_with_the_header(twin):
    """On every device; the name is that of the lock."""
    assert b"tuners_mutex" in Path(twin.framework.core.__file__).read_bytes()


def test_threads_that_compile_leave_the_heap_whole(twin, tmp_path):
    if twin.has_cuda():
        pytest.skip("compiles with g++ alone")
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") < 6 * 2**30:
        pytest.skip("Jittor compiles in one thread below 6 GiB of memory")
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER.format(folder=tmp_path, python=sys.executable))
    compiler.chmod(0o755)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(ROUNDS)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=600,  # a lock that is never released
    )
    assert child.returncode == 0, child.stdout + child.stderr[-2000:]
    # six products in each round, and the three operators that replace them
    assert child.stdout.endswith(f"{6 * ROUNDS + 3} operators\n")
