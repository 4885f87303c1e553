"""Which gradients of Jittor are true ones: `jt.grad` gives zeros for what the loss does not reach.

A true gradient and such zeros are both arrays. But the zeros are one new constant, perhaps
broadcast, in a graph that has not run (src/grad.cc, "set zero grad").
"""

from typing import Any


def connected(jittor: Any, grads: list[Any]) -> list[bool]:
    """For each result of `jt.grad`, before it is computed: whether the loss reaches its array."""
    graph = jittor.core.dump_all_graphs()
    # Each of these attributes is a new list of all nodes, so they are asked for once.
    nodes, inputs, outputs = graph.nodes_info, graph.inputs, graph.outputs
    places = {
        int(info[4:].split(":", 1)[0]): number
        for number, info in enumerate(nodes)
        if info.startswith("Var(")
    }

    def is_zero(var: int) -> bool:
        """Whether a variable is a constant of its own: an array, alone or broadcast, that nothing
        else reads. The gradient of a sum is a constant, too, but the loss's gradient reads it."""
        if not inputs[var]:
            return False
        op = inputs[var][0]
        if ",broadcast_to->" in nodes[op]:
            source = inputs[op][0]
            if len(outputs[source]) > 1 or not inputs[source]:
                return False
            op = inputs[source][0]
        return ",array->" in nodes[op]

    found = [places.get(grad.id) for grad in grads]
    return [place is None or not is_zero(place) for place in found]
