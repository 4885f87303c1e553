"""Averaged parameters in a checkpoint (`optim.ema`), and which parameters a command takes."""

from collections.abc import Collection, Mapping

from transfg_core.backend import Array, Arrays
from transfg_core.errors import UserError

PARAM = "param/"  # of parameters in a run's checkpoint
AVERAGED = "note: these are the averaged parameters of the run (optim.ema)"
EMA = "ema/"  # of their averages; frozen parameters have none


def evaluated_keys(keys: Collection[str]) -> dict[str, str]:
    """Dict: parameter -> key of the array that evaluations use: its average, if it has one."""
    params = {key.removeprefix(PARAM): key for key in keys if key.startswith(PARAM)}
    averages = {key.removeprefix(EMA): key for key in keys if key.startswith(EMA)}
    return params | {name: key for name, key in averages.items() if name in params}


def evaluated_params(arrays: Mapping[str, Array], averaged: bool, path: str) -> Arrays:
    """The parameters of a state for evaluation, the averaged ones or the last ones.

    Raises:
        UserError: averaged ones are asked for, but there are none.
    """
    if not averaged:
        arrays = {key: value for key, value in arrays.items() if not key.startswith(EMA)}
    elif not any(key.startswith(EMA) for key in arrays):
        raise UserError(
            f"{path}: expected averaged parameters (ema/...), found none; set optim.ema=null"
        )
    return {name: arrays[key] for name, key in evaluated_keys(arrays).items()}


def start_averages(
    arrays: Mapping[str, Array], averaged: bool, trained: Collection[str]
) -> tuple[Arrays, str]:
    """The state that a run resumes from with or without `optim.ema`, and a note on what changes.

    Averages that the state lacks start at its parameters; those that the run does not continue are
    left out. The note is empty if nothing changes.
    """
    has = any(key.startswith(EMA) for key in arrays)
    if averaged and not has:
        start = {EMA + name: arrays[PARAM + name] for name in trained if PARAM + name in arrays}
        return dict(arrays) | start, "the averages of optim.ema start at these parameters"
    if has and not averaged:
        rest = {key: value for key, value in arrays.items() if not key.startswith(EMA)}
        return rest, "its averaged parameters are left out, since optim.ema is null"
    return dict(arrays), ""
