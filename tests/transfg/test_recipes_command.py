"""`transfg recipes`: the list, one recipe in full, JSON; and the same from an installed wheel."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT, python, transfg
from typer.testing import CliRunner

from transfg.app import app
from transfg.sweep.file import read_sweep_file
from transfg.sweep.grid import build_sweep
from transfg_core.config.loading import build_config, load_config
from transfg_core.config.yaml_text import parse_yaml
from transfg_core.errors import UserError
from transfg_core.recipes import find_recipes, recipes


@pytest.fixture
def call(monkeypatch):
    """Run the command in the repository's folder; return what it prints."""
    monkeypatch.chdir(ROOT)

    def run(*args):
        result = CliRunner().invoke(app, ["recipes", *args], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    return run


def commands_in(text):
    """The commands of a text, each as words; a backslash continues a line."""
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(shlex.split(line)) for line in lines if line.strip().startswith("transfg ")]


def test_the_list(call):
    lines = call().splitlines()
    assert max(map(len, lines)) <= 100
    entries = {line.split()[0]: line for line in lines[1:-3] if not line.startswith(" ")}
    assert list(entries) == [recipe.name for recipe in recipes()]
    assert entries["cub/overlap"].split()[1:5] == ["TransFG", "91.7", "91.2,", "91.0"]
    assert entries["toy/vit"].endswith("ready") and entries["cub/swinfc_ea"].endswith("no data")
    assert "Swin + EACA + FFM" in entries["cub/swinfc_eaca_ffm"]
    assert commands_in("\n".join(lines)) == [r.command for r in recipes()]


def test_a_folder(call):
    lines = call("dogs").splitlines()
    assert lines[1].startswith("dogs/") and not any(line.startswith("cub") for line in lines)


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
def test_in_full(call, recipe):
    facts, _, configuration = call(recipe.name).partition("\nrun:\n")
    assert facts.startswith(f"{recipe.name}\n")
    joined = " ".join(facts.split())
    for result in recipe.results:
        assert f"{result.kind} {result.text} %" in joined and result.source in joined
        assert f"{result.hours} hours" in joined or not result.hours
    assert commands_in(facts) == [recipe.command]
    assert build_config(parse_yaml("run:\n" + configuration, "")[0], "") == recipe.config


def test_json(call):
    records = json.loads(call("--json"))
    assert [record["name"] for record in records] == [recipe.name for recipe in recipes()]
    one = json.loads(call("cub/reproduction_margin_0.2", "--json"))
    assert one in records
    assert one["overrides"] == ["loss.margin=0.2", "run.name=cub_reproduction_margin_0.2"]
    assert one["settings"]["loss"]["margin"] == 0.2 and one["published"][0]["top1"] == 90.58
    assert one["file"] == "configs/cub/reproduction.yaml"


@pytest.mark.parametrize(
    ("sweep", "cells", "names"),
    [
        ("ablation", 8, ("", "_overlap", "_vit", "_vit_overlap", "_vit_cross_entropy",
                         "_cross_entropy")),
        ("margin", 4, ("_margin_0", "_margin_0.2", "", "_margin_0.6")),
    ],
)  # fmt: skip
def test_a_sweep_holds_the_published_ablation(sweep, cells, names):
    """Its cells are the recipes of the published numbers, but for the names of the runs."""
    built = build_sweep(read_sweep_file(ROOT / f"configs/sweeps/cub/{sweep}.yaml")).cells
    assert len(built) == cells and {cell.config.run.seed for cell in built} == {42}
    configs = [cell.config.model_copy(update={"run": None}) for cell in built]
    for name in names:
        (recipe,) = find_recipes(f"cub/reproduction{name}")
        assert recipe.config.model_copy(update={"run": None}) in configs, name


def test_an_unknown_name(monkeypatch):
    with pytest.raises(UserError, match="the nearest is cub/overlap"):
        CliRunner().invoke(app, ["recipes", "cub/overlapp"], catch_exceptions=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as pip installs its wheel, built from a copy of the sources."""
    place = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    for name in ("configs", "parity", "transfg", "transfg_core", "transfg_jt", "transfg_torch"):
        shutil.copytree(ROOT / name, place / name, symlinks=True, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "built", "."]
    target = [*pip, "install", "--no-deps", "--no-index", "--find-links", "built"]
    for command in (wheel, [*target, "--target", "site", "transfg"]):
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return place / "site"


def test_from_a_wheel(installed, tmp_path, call):
    """Away from the repository, the recipes are those of the repository, and their files load."""
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(installed)
    done = python(tmp_path, ["-m", "transfg", "recipes", "--json"], env=environment)
    assert done.returncode == 0, done.stderr
    records, own = json.loads(done.stdout), json.loads(call("--json"))
    assert [record["name"] for record in records] == [record["name"] for record in own]
    for record, expected in zip(records, own, strict=True):
        assert record["settings"] == expected["settings"]
        if expected["file"] is None:
            continue
        file = Path(record["command"][2])
        assert file.is_relative_to(installed) and not file.is_symlink()
        settings = load_config(file, record["overrides"]).model_dump(mode="json")
        assert settings == record["settings"]


def test_the_printed_command_runs(tmp_path, call):
    """As printed, away from the repository, up to the first thing that is missing."""
    done = transfg(tmp_path, "recipes", "cub/reproduction_margin_0")
    (command,) = commands_in(done.stdout)
    done = transfg(tmp_path, *command[1:])
    assert done.returncode == 2 and "data/CUB_200_2011" in done.stderr
