"""The workloads of `transfg bench`; its published method is the same function as the twin's."""

import numpy as np
import pytest
from reference import relative

from parity.cases.case import Case

CASE = Case("bench", model={"depth": 4, "stride": 6})


def test_the_published_method_is_the_same_function(twin):
    ours = twin.backend(CASE)
    published = twin.module("baseline.workloads").stored_maps_backend(CASE.config())
    published.load_params(CASE.params())
    batch = CASE.batches()[0]
    expected, found = ours.trace(batch), published.trace(batch)
    assert np.array_equal(found["part_index"], expected["part_index"])
    for name in ("logits", "part_layer", "grad/patch_embed.weight", "grad/cls_token"):
        assert relative(found[name], expected[name]) < 2e-5, name


def test_the_published_method_stores_its_maps(twin):
    """The baseline must store maps, or ratios to it mean nothing."""
    model = twin.module("baseline.workloads").stored_maps_backend(CASE.config()).model
    attention = twin.module("baseline.stored_maps").StoredMapsAttention
    classes = [type(block.attn) for block in model.blocks]
    assert classes == [attention] * (CASE.config().model.depth - 1)


@pytest.mark.parametrize("stored", [False, True])
def test_workloads_run_repeatedly(twin, stored):
    backend = twin.backend(CASE)
    workloads = twin.module("baseline.workloads")
    for make in (workloads.attention_step, workloads.selection_step):
        step = make(backend, 2, stored)
        step()
        step()


def test_a_row_of_the_product_of_maps(twin):
    """Both ways to compute the scores, from the same queries and keys."""
    heads, rng = 3, np.random.default_rng(4)
    arrays = [2 * rng.standard_normal((2, 11, 24)).astype(np.float32) for _ in range(6)]
    stored, model = twin.module("baseline.stored_maps"), twin.module("models.parts")

    def both(*tensors):
        queries, keys = list(tensors[:3]), list(tensors[3:])
        maps = [
            stored.attend_with_map(q, k, k, heads)[1] for q, k in zip(queries, keys, strict=True)
        ]
        product = stored.multiply_maps(maps)[:, :, 0, 1:]
        return product, model.fuse_rows(queries, keys, heads, "matmul")

    product, row = twin.run(both, *arrays)
    assert relative(row, product) < 2e-6
