"""Every experiment in configs/ loads, and both READMEs name only what exists."""

import importlib
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import BaseModel

from transfg.app import app
from transfg.sweep.file import read_sweep_file
from transfg.sweep.grid import build_sweep
from transfg_core.config.loading import apply_overrides, build_config, dump_config, load_config
from transfg_core.config.sections import Config
from transfg_core.config.vit import VitConfig

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "configs/sweeps").glob("*/*.yaml"))
CONFIGS = sorted((ROOT / "configs").glob("*/*.yaml"))
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("parity/**/*.md")])
HEADER = ("Source", "Command", "Cost", "Expected", "Published")
SECTIONS = tuple(Config.model_fields)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
KEY = re.compile(rf"(?:{'|'.join(SECTIONS)})(?:\.[a-z_]+)+(?:=.+)?")
FILES = (".safetensors", ".onnx")  # model.safetensors is a file, no key
OUR_FOLDERS = ("configs/", "docs/", "parity/", "tests/", "tools/", "transfg_")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def header_of(path: Path) -> str:
    """The comment lines that a file begins with."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])


@cache
def blocks_of(page: Path, language: str) -> tuple[str, ...]:
    """The fenced blocks of one language, in order."""
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    return tuple(text for found, text in blocks if found == language)


def commands_of(page: Path) -> list[str]:
    """Every line of every sh block."""
    return [line for block in blocks_of(page, "sh") for line in block.splitlines()]


def prose_of(page: Path) -> str:
    """A page without fenced blocks and comments."""
    return COMMENT.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))


def spans_of(page: Path) -> list[str]:
    """The inline code of a page."""
    return SPAN.findall(prose_of(page))


def anchors_of(page: Path) -> set[str]:
    """GitHub's anchors of the headings."""
    headings = HEADING.findall(prose_of(page))
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings}


def field_at(dotted: str) -> bool:
    """Is there such a section or key?"""
    section: type[BaseModel] = Config
    *parents, last = dotted.split(".")
    for part in parents:
        below = section.model_fields[part].annotation if part in section.model_fields else None
        if section is Config and part == "model":
            below = VitConfig  # what the READMEs are about
        if not (isinstance(below, type) and issubclass(below, BaseModel)):
            return False
        section = below
    return last in section.model_fields


def check_command(line: str) -> None:
    """A `transfg` command line: the command and its options exist, its overrides are valid."""
    group = typer.main.get_command(app)
    name, *words = shlex.split(line)[1:]
    assert name in group.commands, f"no such command: {line}"
    command = group.commands[name]
    values = command.make_context(name, list(words)).params  # fails on unknown options
    overrides = values.get("overrides") or []
    if name == "train":
        load_config(ROOT / values["config"], overrides)
    elif name == "sweep":
        build_sweep(read_sweep_file(ROOT / values["file"]), overrides)
    elif overrides:
        tree: dict[str, object] = {}
        apply_overrides(tree, overrides)
        build_config(tree, line)


def test_there_are_experiments() -> None:
    assert "quickstart.yaml" in [path.name for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_config_resolves_to_itself(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump_config(config), encoding="utf-8")
    assert load_config(resolved) == config


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_config_reads_alike_in_yaml_1_1(path: Path) -> None:
    """Other programs read these files too: no scalar may depend on the version of YAML."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert build_config(tree, str(path)) == load_config(path)


@pytest.mark.parametrize("path", [*CONFIGS, *SWEEPS], ids=name_of)
def test_header_tells_what_the_experiment_is(path: Path) -> None:
    header = header_of(path)
    for word in HEADER:
        assert re.search(rf"^# {word}: \S", header, re.MULTILINE), f"{path.name}: no `# {word}: `"
    command = re.search(r"^# Command: (.+)$", header, re.MULTILINE)
    assert command is not None
    assert name_of(path) in shlex.split(command[1])
    check_command(command[1])


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_run_is_named_after_its_file(path: Path) -> None:
    folder = path.parent.name
    assert load_config(path).run.name in (folder, path.stem, f"{folder}_{path.stem}")


def test_runs_have_different_names() -> None:
    names = [load_config(path).run.name for path in CONFIGS]
    assert len(set(names)) == len(names)


def test_toy_pair_differs_in_placement_alone() -> None:
    left, right = (load_config(ROOT / f"configs/toy/{name}.yaml") for name in ("quickstart", "vit"))
    model = left.model.model_copy(update={"placement": "none"})
    run = left.run.model_copy(update={"name": right.run.name})
    assert left.model_copy(update={"model": model, "run": run}) == right


@pytest.mark.parametrize("page", READMES, ids=name_of)
def test_commands_work_as_written(page: Path) -> None:
    lines = [line for line in commands_of(page) if line.startswith("transfg ")]
    assert len(lines) > 10
    for line in lines:
        check_command(line)


@pytest.mark.parametrize("page", READMES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    makefile = ROOT / "Makefile"
    targets = re.findall(r"^([a-z]+):", makefile.read_text(encoding="utf-8"), re.MULTILINE)
    wanted = [line.split()[1] for line in commands_of(page) if line.startswith("make ")]
    assert {"quickstart", "test"} <= set(wanted) <= set(targets)


def test_readmes_have_the_same_commands() -> None:
    english, chinese = (commands_of(page) for page in READMES)
    assert english == chinese


def test_readmes_name_the_same_things() -> None:
    """Keys, options and files in inline code, whatever the sentences around them."""
    pattern = re.compile(rf"--[a-z_-]+|{KEY.pattern}|runs/.*|data/.*|{'.*|'.join(OUR_FOLDERS)}.*")
    english, chinese = (
        {span for span in spans_of(page) if pattern.fullmatch(span)} for page in READMES
    )
    assert english == chinese


def test_readmes_link_each_other() -> None:
    for page, other in (READMES, READMES[::-1]):
        assert other.name in LINK.findall(page.read_text(encoding="utf-8")[:300])


@pytest.mark.parametrize("page", READMES, ids=name_of)
def test_config_keys_exist(page: Path) -> None:
    keys = [s for s in spans_of(page) if KEY.fullmatch(s) and not s.endswith(FILES)]
    assert len(keys) > 20
    for span in keys:
        key, equals, _ = span.partition("=")
        assert field_at(key), f"{page.name}: no key {key}"
        if equals:
            load_config(ROOT / "configs/cub/overlap.yaml", shlex.split(span))  # as a shell does


@pytest.mark.parametrize("page", READMES, ids=name_of)
def test_options_and_subcommands_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    for span in spans_of(page):
        if span.startswith("transfg "):
            assert span.split()[1] in group.commands, span


@pytest.mark.parametrize("page", READMES, ids=name_of)
def test_files_exist(page: Path) -> None:
    for span in spans_of(page):
        if span.startswith(OUR_FOLDERS) and re.fullmatch(r"[\w./-]+", span):
            assert (ROOT / span).exists(), f"{page.name}: no {span}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{name_of(page)}: {target}"
        if anchor:
            assert anchor in anchors_of(linked), f"{name_of(page)}: {target}"


@pytest.mark.parametrize("page", READMES, ids=name_of)
def test_python_names_exist(page: Path) -> None:
    (source,) = blocks_of(page, "python")
    compile(source, page.name, "exec")
    imports = re.findall(r"^from (transfg\S*) import (.+)$", source, re.MULTILINE)
    assert imports
    for module, names in imports:
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_snippets_are_the_same_but_for_comments() -> None:
    english, chinese = (re.sub(r" *#.*", "", blocks_of(page, "python")[0]) for page in READMES)
    assert english == chinese
