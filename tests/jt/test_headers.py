"""The headers that stand before Jittor's and oneDNN's own, tested with stand-ins for these.

Signals wait in the calls of oneDNN, and tuners of Jittor exclude each other.
"""

import shutil
import subprocess

import pytest

from transfg_jt.setup import headers, onednn

COMPILER = shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no g++ on PATH")

# Like oneDNN 2.x: a C interface, and a C++ interface in a folder below that calls it. The status
# is 1 if signals wait in this thread and in one that it starts, and the signals of faults do not.
STAND_IN = {
    "dnnl.h": '#include "oneapi/dnnl/dnnl.h"\n',
    "dnnl.hpp": '#include "oneapi/dnnl/dnnl.hpp"\n',
    "oneapi/dnnl/dnnl.h": """
#ifndef DNNL_H
#define DNNL_H
typedef enum { dnnl_success } dnnl_status_t;
extern "C" dnnl_status_t dnnl_sgemm(char, int, const float*);
extern "C" dnnl_status_t dnnl_primitive_execute(int);
#endif
""",
    "oneapi/dnnl/dnnl.hpp": """
#include "oneapi/dnnl/dnnl.h"
struct primitive { int execute() { return dnnl_primitive_execute(0); } };
""",
}
LIBRARY = """
#include <signal.h>
#include <initializer_list>
#include <thread>
#include "oneapi/dnnl/dnnl.h"
static bool waits(int signal) {
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    return sigismember(&mask, signal);
}
int masked() {
    for (int signal : {SIGTERM, SIGINT, SIGCHLD, SIGALRM, SIGPROF, SIGUSR1, SIGRTMIN})
        if (!waits(signal)) return false;
    return !waits(SIGSEGV) && !waits(SIGFPE) && !waits(SIGABRT);
}
static dnnl_status_t answer() {
    int inside = 0;
    std::thread([&] { inside = masked(); }).join();
    return (dnnl_status_t)(masked() && inside);
}
extern "C" dnnl_status_t dnnl_sgemm(char, int, const float*) { return answer(); }
extern "C" dnnl_status_t dnnl_primitive_execute(int) { return answer(); }
"""
PROGRAM = """
#include <signal.h>
#include <dnnl.hpp>
int masked();
int main() {
    float x = 0;
    if (masked()) return 1;
    if (!dnnl_sgemm('N', 1, &x)) return 2;
    if (!primitive().execute()) return 3;
    { transfg::SignalsWait wait; if (!masked()) return 4; }
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    for (int k = 1; k < SIGRTMAX; k++) if (sigismember(&mask, k)) return 5;
    return 0;
}
"""

# Like Jittor 1.3.11, whose tuners live as long as their manager.
JITTOR = {
    "common.h": """
#include <map>
#include <string>
#include <vector>
namespace jittor { typedef std::map<std::string, std::vector<int>> loop_option_candidates_t; }
""",
    "opt/tuner/tuner.h": """
#pragma once
namespace jittor {
struct Tuner {
    loop_option_candidates_t candidates;
    Tuner() : candidates({}) {}
};
}
""",
}
TUNERS = """
#include <atomic>
#include <chrono>
#include <thread>
#include "common.h"
#include "opt/tuner/tuner.h"
int main() {
    std::atomic<bool> started{false}, entered{false};
    std::thread other;
    {
        jittor::Tuner first, second;
        second.candidates["relay0"].push_back(1);
        other = std::thread([&] { started = true; jittor::Tuner third; entered = true; });
        while (!started) std::this_thread::yield();
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        if (entered) { other.join(); return 1; }
    }
    other.join();
    return entered ? 0 : 2;
}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Jittor's home, with the stand-in in the folder where Jittor looks for oneDNN."""
    for module in (headers, onednn):
        monkeypatch.setattr(module, "jittor_home", lambda: tmp_path)
    include = tmp_path / onednn.ONEDNN_FOLDER / "include"
    (include / "oneapi/dnnl").mkdir(parents=True)
    for name, text in STAND_IN.items():
        (include / name).write_text(text)
    (tmp_path / "library.cc").write_text(LIBRARY)
    (tmp_path / "program.cc").write_text(PROGRAM)
    return tmp_path


def build(folder, flags):
    """Compile with Jittor's flags: it puts the folder of oneDNN before all others."""
    include = f'-I"{onednn.onednn_include()}"'
    command = f"{COMPILER} -std=c++14 -Wall -Werror -Ofast {include} {flags} program.cc library.cc"
    subprocess.run(f"{command} -o program -lpthread", shell=True, check=True, cwd=folder)
    return subprocess.run([folder / "program"]).returncode


def test_signals_wait_inside_and_not_after(folder):
    assert build(folder, headers.header_flags(uses_onednn=True)) == 0


def test_without_the_flags_they_do_not(folder):
    """The test above can fail."""
    copy = folder / "transfg_signals.h"
    shutil.copy(headers.HEADERS / copy.name, copy)
    assert build(folder, f"-I. -include {copy.name}") == 2


def test_headers_are_repaired_and_have_a_name_of_their_own(folder, monkeypatch, tmp_path):
    flags = headers.header_flags(uses_onednn=True)
    (copied,) = folder.glob(".cache/jittor/transfg-include-*")
    assert str(copied) in flags
    (copied / "dnnl.h").write_text("half")
    assert headers.header_flags(uses_onednn=True) == flags
    assert (copied / "dnnl.h").read_bytes() == (headers.HEADERS / "dnnl.h").read_bytes()
    changed = tmp_path / "changed"
    shutil.copytree(headers.HEADERS, changed)
    (changed / "dnnl.h").write_text("another")
    monkeypatch.setattr(headers, "HEADERS", changed)
    assert headers.header_flags(uses_onednn=True) != flags


@pytest.mark.parametrize("mended", [True, False])
def test_tuners_exclude_each_other(folder, mended):
    for name, text in JITTOR.items():
        path = folder / "jittor" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "program.cc").write_text(TUNERS)
    flags = headers.header_flags(uses_onednn=False) if mended else ""
    assert "-isystem" not in flags
    assert build(folder, f"{flags} -Ijittor") == (0 if mended else 1)


def test_the_systems_folder_keeps_its_place(folder, monkeypatch):
    """As -isystem, /usr/include would hide the C++ library's own stdlib.h."""
    include = onednn.onednn_include()
    shutil.rmtree(include)
    include.symlink_to("/usr/include")
    assert "-isystem" not in headers.header_flags(uses_onednn=True)
