"""Which twin is loaded, in which order, and what becomes of one that cannot be."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from transfg_core import backend
from transfg_core.backend import load_backend
from transfg_core.config.loading import load_config
from transfg_core.errors import UserError

CONFIG = load_config(None, ["model.classes=2"])


@pytest.fixture
def third(monkeypatch):
    """A third framework: a package with `runtime` and `backend`."""
    calls = []
    modules = {"": {}, ".runtime": {"prepare": lambda: calls.append("prepare")}}
    modules[".backend"] = {"make_backend": lambda config: calls.append(config) or calls}
    for suffix, content in modules.items():
        module = ModuleType(f"transfg_third{suffix}")
        vars(module).update(content)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(backend.BACKENDS, "third", "transfg_third")
    return SimpleNamespace(calls=calls, runtime=sys.modules["transfg_third.runtime"])


def test_the_machine_is_prepared_before_the_model_is_built(third):
    assert load_backend("third", CONFIG) is third.calls
    assert third.calls == ["prepare", CONFIG]


def test_an_unfit_machine_is_told(third):
    def prepare():
        raise UserError("backend third: not installed; run: .*pip install third")

    third.runtime.prepare = prepare
    with pytest.raises(UserError, match="run: .*pip install third"):
        load_backend("third", CONFIG)
    assert third.calls == []


def test_an_unknown_name():
    with pytest.raises(UserError, match="--backend tf: expected one of torch, jittor") as caught:
        load_backend("tf", CONFIG)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", list(backend.BACKENDS))
def test_a_missing_framework_names_its_command(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    if name == "jittor":
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"backend {name}: .*run: .*pip install .*\[{name}\]"):
        load_backend(name, CONFIG)
