"""How many terms a recorded gradient sums."""

import numpy as np

from parity.recording.adapter import Module
from parity.recording.recorder import ModuleCall
from parity.recording.terms import gradient_terms, statistic_terms


def call(name, parameters, outputs):
    module = Module(name, "Conv", True, None, "convolution", {}, parameters, [], "")
    return ModuleCall(name, module, (), {}, [], {}, outputs)


TAPS = {
    "forward/0": np.zeros((2, 3, 4, 5)),  # 40 positions of 3 channels
    "forward/0#2": np.zeros((2, 3, 4, 5)),
    "forward/1.0": np.zeros((7, 6)),
    "gradients/0.weight": np.zeros((3, 2, 1, 1)),
    "gradients/0.bias": np.zeros(3),
    "gradients/0.bias#2": np.zeros(3),
    "gradients/1.bias": np.zeros(6),
    "gradients/scalar": np.zeros(1),
}


def test_a_bias_sums_all_positions_of_all_calls():
    calls = [
        call("0", ["0.weight", "0.bias", "0.frozen"], ["forward/0"]),
        call("0#2", ["0.weight", "0.bias"], ["forward/0#2"]),
        call("1", ["1.bias"], ["forward/1.0", "forward/1.1"]),
        call("2", ["scalar"], ["forward/2"]),  # its output was not recorded
    ]
    found = gradient_terms(calls, TAPS, "forward/", "gradients/")
    assert found == {"gradients/0.bias": 80, "gradients/1.bias": 7}


def test_a_repeated_call_alone():
    calls = [call("0#2", ["0.bias"], ["forward/0#2"])]
    found = gradient_terms(calls, TAPS, "forward/", "gradients/", "#2")
    assert found == {"gradients/0.bias#2": 40}


def test_a_running_statistic_follows_the_mean_of_all_positions():
    names = ["0.running_mean", "0.table", "0.num_batches_tracked", "0.absent"]
    module = Module("0", "BatchNorm", True, None, "batch_norm", {}, [], names, "")
    state = {
        "0.running_mean": np.zeros(3, np.float32),
        "0.table": np.zeros((3, 3), np.float32),
        "0.num_batches_tracked": np.zeros(1, np.int64),
    }
    calls = [ModuleCall("0", module, (), {}, [], {}, ["forward/0"])]
    found = statistic_terms(calls, TAPS, "forward/", "statistics/", state, "#2")
    assert found == {"statistics/0.running_mean#2": 40}
    assert statistic_terms(calls, {}, "forward/", "statistics/", state) == {}
