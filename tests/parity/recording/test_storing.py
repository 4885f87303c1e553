"""What is stored whole, the order of recordings on two lanes, and taps that are handed on."""

import threading

import numpy as np
import pytest

from parity.errors import ParityError
from parity.recording.processes.lanes import run_lanes
from parity.recording.processes.plan import Request, requests
from parity.recording.storing import LARGE, SMALL, Storing, limit_of_weights
from parity.recording.subject import Recording

MAIN = Storing(main=True, fed=False, exact=True, weights=1000)
FED = Storing(main=True, fed=True, exact=True, weights=1000)
EXACT = Storing(main=False, fed=False, exact=True, weights=1000)
VARIANT = Storing(main=False, fed=False, exact=False, weights=1000)
KINK = "forward/bn"


@pytest.mark.parametrize(
    ("storing", "name", "limit"),
    [
        (FED, "forward/conv", None),
        (FED, "training inputs/conv", None),
        (FED, "training backward/d/conv", None),
        (FED, "training gradients/conv.weight", 1000),
        (FED, "parameters/conv.weight", LARGE),
        (MAIN, "forward/conv", LARGE),
        (MAIN, KINK, None),
        (MAIN, "one update/step/conv.weight", 1000),
        (MAIN, "isolated gradients/conv.weight", 1000),
        (EXACT, KINK, None),
        (EXACT, "forward/conv", SMALL),
        (EXACT, "gradients/conv.weight", SMALL),
        (VARIANT, KINK, SMALL),
        (VARIANT, "parameters/conv.weight", SMALL),
    ],
)
def test_what_is_whole(storing, name, limit):
    assert storing.limit(name, {KINK}) == limit


def test_arrays_with_a_layout_of_their_own_are_whole():
    own = Storing(main=False, fed=False, exact=False, weights=1000, everything=True)
    assert own.limit("gradients/conv.weight", ()) is None


def test_small_parameters_are_whole_as_far_as_the_budget_reaches():
    assert limit_of_weights([10, 10**6], budget=10**7) == LARGE  # all of them
    assert limit_of_weights([10, 10**6, 2 * 10**6], budget=2 * 10**6) == 2 * 10**6 - 1
    assert limit_of_weights([10**6] * 50, budget=2 * 10**6) == 10**6 - 1  # not 48 of them
    assert limit_of_weights([10**8], budget=10) == LARGE
    assert limit_of_weights([100] * 10**4, budget=10) == SMALL  # a sketch would be larger


def test_a_sink_gets_each_tap_once_and_knows_the_kinks():
    got = []
    recording = Recording()
    recording.sink = lambda name, value: got.append((name, name in recording.inputs_of_kinks))
    recording.taps |= {"forward/a": np.ones(2), KINK: np.ones(2)}
    recording.kinks["choices/relu"] = {"input": KINK}
    recording.flush()
    recording.taps["losses/loss"] = np.ones(())
    recording.flush()
    assert got == [("forward/a", False), (KINK, True), ("losses/loss", False)]
    assert not recording.taps


class FakePair:
    modes, variants, float64 = ("eval", "train"), 3, True


ABLE = dict.fromkeys(("baseline", "candidate"), {"isolated", "float64"})


def test_both_sides_record_at_once_and_each_after_what_it_needs():
    plan = requests(FakePair(), ABLE)
    done, order, together = set(), [], threading.Barrier(2, timeout=10)

    def record(request):
        assert {request.follow, request.source} - {None} <= done
        if request.variant == "ulp:1" and request.kind == "pass" and request.precision == "float32":
            together.wait()  # one of each side: they run at the same time, or this fails
        order.append(request)
        done.add(request.name)

    run_lanes(plan, record, lambda: None)
    for side in ABLE:
        assert [r for r in order if r.side == side] == [r for r in plan if r.side == side]


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_an_error_of_one_side_ends_both(side):
    made = []

    def record(request: Request):
        made.append(request)
        if request.side == side:
            raise ParityError(f"{side} fails")

    with pytest.raises(ParityError, match=f"{side} fails"):
        run_lanes(requests(FakePair(), ABLE), record, lambda: None)
    assert sum(request.side == side for request in made) == 1
