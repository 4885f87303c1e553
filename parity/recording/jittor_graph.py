"""Which gradients of Jittor are true ones: `jt.grad` gives zeros for what the loss does not reach.

A true gradient and such zeros are both arrays. But the zeros are one new constant, perhaps
broadcast, in a graph that has not run (src/grad.cc, "set zero grad").
"""

from typing import Any


def connected(jittor: Any, grads: list[Any]) -> list[bool]:
    """For each result of `jt.grad`, before it is computed: whether the loss reaches its array."""
    graph = jittor.core.dump_all_graphs()
    place = {}
    for index, info in enumerate(graph.nodes_info):
        if info.startswith("Var("):
            place[int(info[4:].split(":", 1)[0])] = index
    answers = []
    for grad in grads:
        found = place.get(grad.id)
        answers.append(found is None or not is_zero(graph, found))
    return answers


def is_zero(graph: Any, var: int) -> bool:
    """Whether a variable is a constant of its own: an array, alone or broadcast, that nothing else
    reads. The gradient of a sum is a constant, too, but the loss's gradient reads it as well."""
    if not graph.inputs[var]:
        return False
    op = graph.inputs[var][0]
    if ",broadcast_to->" in graph.nodes_info[op]:
        source = graph.inputs[op][0]
        if len(graph.outputs[source]) > 1 or not graph.inputs[source]:
            return False
        op = graph.inputs[source][0]
    return ",array->" in graph.nodes_info[op]
