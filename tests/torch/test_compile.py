"""`run.compile`: the same function, compiled once for all blocks of the encoder."""

import numpy as np
import pytest
import torch
from reference import relative

from parity.cases.case import Case
from transfg_core.backend import load_backend

CASE = Case("compiled", model={"depth": 4, "stride": 6})


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch, tmp_path):
    """PyTorch's cache ignores ATEN_CPU_CAPABILITY: code for another one does not compile."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


# PyTorch's compiler warns about PyTorch's own code
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_are_the_same_function(checkpointing):
    config = CASE.config()
    settings = {"compile": True, "grad_checkpointing": checkpointing}
    compiled = config.model_copy(update={"run": config.run.model_copy(update=settings)})
    plain, fast = (load_backend("torch", variant) for variant in (config, compiled))
    batch = CASE.batches()[0]
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    for backend in (plain, fast):
        backend.load_params(CASE.params())
    expected, report = (b.fetch(b.train_step([batch], 0.01)) for b in (plain, fast))
    assert counters["stats"]["unique_graphs"] == 1  # not one for each of the three blocks
    assert not counters["graph_break"]
    for name, value in expected.items():
        assert report[name] == pytest.approx(value, rel=1e-5), name
    expected, state = plain.state(), fast.state()
    assert list(state) == list(expected)
    for name, value in expected.items():
        if not name.endswith("key.bias"):  # zero except for rounding
            assert relative(state[name], value) < 1e-5, name
    assert np.array_equal(
        *(b.fetch(b.eval_step(batch.images))["part_index"] for b in (plain, fast))
    )
