"""No signal's handler runs on the heap while oneDNN computes, nor in a thread of an operator.

oneDNN 2.x lets the stack pointer point to the heap (docs/jittor.md, "Signals and restarts"). The
child process takes a signal each millisecond, on an alternate stack, and looks at the stack pointer
that the signal interrupted. Without the mend, half of them find it on the heap.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import CONFIG, environment, records, wait_for

pytestmark = pytest.mark.only("jittor")

PROBE = """
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>
static volatile long taken, on_heap;
static char alternate[1 << 20];
static unsigned long low, high;
static pid_t thread;
static void look(int, siginfo_t*, void* context) {
    taken++;
    const auto at = (unsigned long)((ucontext_t*)context)->uc_mcontext.gregs[REG_RSP];
    if (gettid() == thread && (at < low || at >= high)) on_heap++;
}
extern "C" void start(unsigned long from, unsigned long to) {
    low = from, high = to, thread = gettid();
    stack_t stack = {};
    stack.ss_sp = alternate, stack.ss_size = sizeof alternate;
    sigaltstack(&stack, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = look, action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigaction(SIGALRM, &action, nullptr);
    const itimerval each = {{0, 1000}, {0, 1000}};
    setitimer(ITIMER_REAL, &each, nullptr);
}
extern "C" void stop(long* result) {
    const itimerval never = {};
    setitimer(ITIMER_REAL, &never, nullptr);
    result[0] = taken, result[1] = on_heap;
}
"""

CHILD = """
import ctypes, json, re, sys, time
from pathlib import Path
from transfg_jt import runtime
runtime.prepare()
import jittor as jt
from transfg_jt.models.layers import LayerNorm
from transfg_jt.ops.cpu import run_cpu
x, weight = jt.randn(2600, 96), jt.randn(96, 384)
if sys.argv[2] == "norm":  # its threads are those of later products
    LayerNorm(96)(x).sync()
(x @ weight).sync()
IDS = '''
    #pragma omp parallel num_threads(3)
    out0_p[omp_get_thread_num()] = gettid();
'''
tids = run_cpu(IDS, [(3,)], [x], "#include <omp.h>\\n#include <unistd.h>")[0].numpy()[1:]
blocked = []
for tid in tids:
    status = Path(f"/proc/self/task/{tid:.0f}/status").read_text()
    blocked.append(int(re.search(r"SigBlk:\\s+(\\w+)", status)[1], 16))
high = int(re.search(r"-(\\w+) .*\\[stack\\]", Path("/proc/self/maps").read_text())[1], 16)
probe = ctypes.CDLL(sys.argv[1])
probe.start(ctypes.c_ulong(high - (64 << 20)), ctypes.c_ulong(high))
end = time.monotonic() + 1
while time.monotonic() < end:
    (x @ weight).sync()
result = (ctypes.c_long * 2)()
probe.stop(result)
print(json.dumps({"taken": result[0], "on heap": result[1], "blocked": blocked}))
"""


@pytest.fixture(scope="module", params=["norm", "product"])
def seen(twin, tmp_path_factory, request):
    """What the child process saw; it starts its threads in the operator named by the parameter."""
    if twin.has_cuda() or os.uname().machine != "x86_64" or not shutil.which("g++"):
        pytest.skip("only for oneDNN on x86-64, with g++")
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.cc").write_text(PROBE)
    build = ["g++", "-O1", "-shared", "-fPIC", "probe.cc", "-o", "probe.so"]
    subprocess.run(build, check=True, cwd=folder)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder / "probe.so"), request.param],
        env=environment() | {"OMP_NUM_THREADS": "3"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_signal_arrives_while_the_stack_pointer_is_on_the_heap(seen):
    assert seen["taken"] > 20
    assert seen["on heap"] == 0


def test_threads_of_operators_block_all_signals_but_those_of_faults(seen):
    assert len(seen["blocked"]) == 2
    faults = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP"}
    for mask in seen["blocked"]:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            name = signal.Signals(number).name if number in set(signal.Signals) else ""
            assert bool(mask >> (number - 1) & 1) == (name not in faults), (number, name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_process_group_ends_the_run(twin, tmp_path, number):
    """Processes in which Jittor compiled itself must not keep the run from ending."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    command = [
        *(sys.executable, "-m", "transfg", "train", "config.yaml", "--backend", "jittor"),
        *("train.steps=100000", "train.eval_every=100000", "train.save_every=null"),
    ]
    child = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), start_new_session=True, stderr=subprocess.PIPE,
        text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        wait_for(lambda: len(records(tmp_path / "runs/trial")) > 3)
        assert not Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text()
        os.killpg(child.pid, number)
        _, said = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 128 + number, said
    assert (tmp_path / "runs/trial/checkpoints/last.safetensors").exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)
