"""Imports go one way and in no circle; the core and the suite import no framework.

The tests search the source for imports anywhere, also in functions. Child processes import every
module as well, since the source does not show imports by name.
"""

import ast
import graphlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FRAMEWORKS = {"torch": "transfg_torch", "jittor": "transfg_jt"}
ALL = {*FRAMEWORKS, *FRAMEWORKS.values(), "jittor_utils", "torchvision"}

PACKAGES = ("transfg", "parity", "transfg_torch", "transfg_jt", "transfg_core")

# What no file in a folder may import: frameworks, and packages above it.
FORBIDDEN = {
    "transfg_core": ALL | {"transfg", "parity", "tools"},
    "parity": ALL | {"transfg", "tools"},
    "parity/diagnose": {"transfg_core", "scipy", "pydantic", "rich"},
    "transfg": ALL | {"tools"},
    "tests/core": ALL | {"transfg", "parity", "tools"},
    "tests/parity": ALL,
    "transfg_torch": {"jittor", "jittor_utils", "transfg_jt", "transfg", "parity", "tools"},
    "transfg_jt": {"torch", "transfg_torch", "transfg", "parity", "tools"},
}


# The rooms of `parity` that make a distribution of their own, and all that they may import.
GENERIC = ("comparison", "diagnose", "matching", "recording", "report")
OWN_ROOMS = ("cases", "runs", "suite")  # of this project's own suite
NEEDED = {"numpy", "yaml"}
OPTIONAL = {"parity/report": {"jinja2", "matplotlib"}}
# `FRAMEWORK.py` and the folder `recording/frameworks/FRAMEWORK` may import their own framework.
ADAPTED = {
    "torch": {"torch"},
    "jittor": {"jittor", "jittor_utils"},
    "jax": {"jax", "flax", "optax"},
    "onnx": {"onnx", "onnxruntime"},
}


def adapted(path: Path) -> set[str]:
    """The packages of a framework that an adapter's file may import; empty for other files."""
    frameworks = ROOT / "parity/recording/frameworks"
    name = path.parent.name if path.parent.parent == frameworks else path.stem
    at_home = path.parent in (ROOT / "parity", frameworks / name)
    return ADAPTED.get(name, set()) if at_home else set()


def imports(path: Path) -> set[str]:
    """Top-level packages imported anywhere in a file, by statement or by a literal name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and "import" in (name := ast.unparse(node.func)):
            if name.endswith("spec_from_file_location"):  # its name is made up for a file
                continue
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            found |= {name.partition(".")[0] for name in names if isinstance(name, str)}
    return found


def named(root: Path, package: str) -> dict[str, Path]:
    """Dotted name -> file, of every module of a package."""
    paths = sorted((root / package).rglob("*.py"))
    dotted = {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in dotted.items()}


def modules(package: str) -> list[str]:
    """The dotted names of all modules of a package, without adapters of frameworks."""
    return [name for name, path in named(ROOT, package).items() if not adapted(path)]


def child(code: str, *arguments: str) -> list[str]:
    """Run code in a new interpreter at the repository's root; return the list that it prints."""
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LOADED = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""

BLOCKED = """
import importlib, json, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
blocked = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Blocker())
for name in sys.argv[2:]:
    importlib.import_module(name)
print(json.dumps([]))
"""


@pytest.mark.parametrize(
    "line",
    [
        "import torch.nn",
        "def f():\n    from torch import nn",
        'importlib.import_module("torch.nn")',
        'pytest.importorskip("torch")',
    ],
)
def test_imports_are_found(tmp_path, line):
    path = tmp_path / "planted.py"
    path.write_text(f"import os\n{line}\n", encoding="utf-8")
    assert imports(path) == {"os", "torch"}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_source_imports_one_way(folder):
    for path in (ROOT / folder).rglob("*.py"):
        forbidden = FORBIDDEN[folder] - adapted(path)
        assert not imports(path) & forbidden, path.relative_to(ROOT).as_posix()


def generic_files() -> list[Path]:
    """The files of the distribution `transfg-parity`."""
    rooms = [path for room in GENERIC for path in (ROOT / "parity" / room).rglob("*.py")]
    return [*(ROOT / "parity").glob("*.py"), *rooms]


def test_every_room_of_parity_is_generic_or_the_suites():
    rooms = {path.parent.name for path in (ROOT / "parity").glob("*/__init__.py")}
    assert rooms == {*GENERIC, *OWN_ROOMS}


@pytest.mark.parametrize("room", ["", *GENERIC])
def test_generic_rooms_need_numpy_and_yaml_alone(room):
    """Also for imports in functions; the page's two packages and an adapter's framework aside."""
    folder = ROOT / "parity" / room
    files = [p for p in generic_files() if p.parent == folder or room and folder in p.parents]
    assert files
    for path in files:
        optional = OPTIONAL.get(path.parent.relative_to(ROOT).as_posix(), set()) | adapted(path)
        foreign = imports(path) - {*NEEDED, *optional, *sys.stdlib_module_names, "parity"}
        assert not foreign, f"{path.relative_to(ROOT)}: {foreign}"


def test_generic_rooms_import_no_room_of_the_suite():
    graph = module_graph(ROOT)
    own = {name for name in graph if name.startswith(tuple(f"parity.{r}" for r in OWN_ROOMS))}
    for path in generic_files():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        assert not graph[name] & own, name


def module_graph(root: Path) -> dict[str, set[str]]:
    """Dict: module -> the project's modules that it imports anywhere, also in functions."""
    files = {name: path for package in PACKAGES for name, path in named(root, package).items()}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        graph[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[module] |= (inside & files.keys()) or ({node.module} & files.keys())
            elif isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names} & files.keys()
        graph[module].discard(module)
    return graph


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Names that import one another in a circle; empty if there is no circle."""
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def rooms_of(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The import graph of each package's direct entries: its files, and its folders as a whole."""
    rooms: dict[str, set[str]] = {}
    for module, imported in graph.items():
        here = ".".join(module.split(".")[:2])
        there = {".".join(name.split(".")[:2]) for name in imported}
        rooms.setdefault(here, set()).update(there - {here})
    return rooms


def test_no_circle_of_imports():
    """No circle between files, and none between folders."""
    graph = module_graph(ROOT)
    assert len(graph) > 100 and sum(map(len, graph.values())) > 300
    assert circle_in(graph) == []
    assert circle_in(rooms_of(graph)) == []


def test_a_circle_is_found(tmp_path):
    for name, text in (
        ("a/x", "import parity.b.y"),
        ("b/y", "def f():\n    from parity.a import x"),
    ):
        (tmp_path / "parity" / name).parent.mkdir(parents=True)
        (tmp_path / "parity" / f"{name}.py").write_text(text, encoding="utf-8")
    graph = module_graph(tmp_path)
    assert set(circle_in(graph)) == {"parity.a.x", "parity.b.y"}
    (tmp_path / "parity/b/y.py").write_text("from parity.a import z", encoding="utf-8")
    (tmp_path / "parity/a/z.py").write_text("", encoding="utf-8")
    graph = module_graph(tmp_path)
    assert circle_in(graph) == [] and set(circle_in(rooms_of(graph))) == {"parity.a", "parity.b"}


def test_only_the_border_names_the_twins():
    """Only the core's backend.py names `transfg_torch` and `transfg_jt` (comments aside)."""
    folders = [ROOT / name for name in ("transfg_core", "parity", "transfg")]
    border = ROOT / "transfg_core/backend.py"
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        constants = [
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        named = {each for each in constants if each in FRAMEWORKS.values()}
        assert named == (set(FRAMEWORKS.values()) if path == border else set()), path


@pytest.mark.parametrize("package", ["transfg_core", "parity", "transfg"])
def test_importing_everything_loads_no_framework(package):
    """The test proves something only if both frameworks are installed."""
    missing = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"proves nothing without {' and '.join(missing)} installed")
    loaded = child(LOADED, *modules(package))
    assert package in loaded and not ALL & set(loaded)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_twin_loads_only_its_own_framework(framework):
    """Here the other framework and the other twin cannot be imported."""
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    twin = FRAMEWORKS[framework]
    others = {name for pair in FRAMEWORKS.items() for name in pair} - {framework, twin}
    prepare = f"import {twin}.runtime\n{twin}.runtime.prepare()\n"
    triton = importlib.util.find_spec("triton") is not None  # PyTorch for the CPU has none
    own = [name for name in modules(twin) if triton or not name.endswith(".row_kernel")]
    assert child(prepare + BLOCKED, ",".join(others), *own) == []
    loaded = child(prepare + LOADED, *own)
    assert framework in loaded and not others & set(loaded)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_core_and_parity_work_without_a_twin(framework):
    blocked = f"{framework},{FRAMEWORKS[framework]}"
    assert child(BLOCKED, blocked, *modules("transfg_core"), *modules("parity")) == []


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_message_for_a_missing_framework_names_the_remedy(framework):
    code = f"""
import importlib.util, json
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {framework!r} else real(name, *rest)
from transfg_core.backend import load_backend
from transfg_core.config.sections import Config
from transfg_core.errors import UserError
try:
    load_backend({framework!r}, Config())
except UserError as error:
    print(json.dumps([str(error)]))
"""
    (message,) = child(code)
    assert message.startswith(f"backend {framework}: ") and "pip install" in message


def test_command_line_starts_light():
    """`transfg --help` loads no data loader and no plots: they are imported where they are used."""
    loaded = set(child(LOADED, "transfg.app"))
    heavy = {
        "grain",
        "scipy",
        "matplotlib",
        "tensorboardX",
        "jinja2",
        "safetensors",
        "PIL",
    }
    assert not (heavy | ALL) & loaded
    assert "parity" not in loaded and "transfg_core" in loaded
