"""The text of an error that a user's model raises, on one line."""

from parity.recording.places import reason_of

JITTOR = """Wrong inputs arguments, Please refer to examples(help(jt.ops.ternary)).

Types of your inputs are:
 args = (Var,Var,Var,)

The function declarations are:
 VarHolder* ternary(VarHolder* cond, VarHolder* x, VarHolder* y)

Failed reason:\x1b[38;5;1m[f 1128 06:20:15 ternary_op.cc:31] Check failed: Shape not match
  x:[3,11,1,] y:[11,3,1,]\x1b[m"""


def test_the_first_line_and_what_jittor_says_last():
    assert reason_of(ValueError("one\ntwo")) == "one"
    assert reason_of(ValueError()) == "no message"
    assert reason_of(RuntimeError(JITTOR)) == (
        "Wrong inputs arguments, Please refer to examples(help(jt.ops.ternary)). Failed reason: "
        "[f 1128 06:20:15 ternary_op.cc:31] Check failed: Shape not match x:[3,11,1,] y:[11,3,1,]"
    )
    assert len(reason_of(RuntimeError(JITTOR + "x" * 999))) < 400
