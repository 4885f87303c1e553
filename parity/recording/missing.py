"""What a recording of modules lacks: those that no call reached, and those not computed alone."""

from collections.abc import Collection, Mapping

from parity.recording.recorder import ROOT
from parity.recording.subject import Subject

HOLDERS = ("ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential")  # if empty


def uncalled(subject: Subject) -> list[str]:
    """Paths of leaf modules that no pass has called: the model uses their weights itself.

    Parts of another leaf, such as `out_proj` of an attention, are none.
    """
    called = {call.module.path for calls in subject.calls.values() for call in calls.values()}
    leaves = {path for path, module in subject.modules.items() if module.is_leaf}
    return [
        path or ROOT
        for path in subject.modules
        if path in leaves - called
        and subject.modules[path].class_name not in HOLDERS
        and not any(path.startswith(f"{leaf}.") for leaf in leaves)
    ]


def containers(subject: Subject) -> dict[str, dict[str, str]]:
    """Path -> class and source of the modules that have others inside and code of their own."""
    return {
        path: {"module": module.class_name, "source": module.source}
        for path, module in subject.modules.items()
        if not module.is_leaf and module.source and module.class_name not in HOLDERS
    }


def not_alone(
    subject: Subject, names: Mapping[str, str], operations: Collection[str], taps: Collection[str]
) -> list[str]:
    """Calls of leaf modules that have a partner in the baseline but were not computed alone.

    Args:
        names: this side's name of a module call -> the baseline's, where they differ.
        operations: taps of modules in the baseline's pass.
        taps: what was recorded.
    """
    partners = {tap.removesuffix(".0") for tap in operations}
    done = {tap.removesuffix(".0") for tap in taps}
    return [
        f"{stage}{name}"
        for stage, calls in subject.calls.items()
        for name, call in calls.items()
        if (not stage or call.module.buffers)
        and f"{stage}forward/{names.get(name, name)}" in partners
        and f"isolated {stage}forward/{name}" not in done
    ]
