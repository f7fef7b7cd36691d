"""Probabilities of the classes: the softmax that a loss has of the network's output."""

from __future__ import annotations

from sifrc.calculus import jvp, softmax
from sifrc.ir import Expr, Input, LogSoftmax, LogSumExp, Role
from sifrc.ir.traverse import postorder, rewrite
from sifrc.model import Model

__all__ = ["probabilities_of"]


def probabilities_of(model: Model) -> Expr | None:
    """The softmax of the output, if the loss is linear in its log softmax or log Σ exp, and otherwise.

    Args:
        model: whose loss is looked at.

    Returns:
        The softmax; None where the loss is another one.
    """
    loss, state = model.data_loss, model.output.state
    kinds = (LogSumExp, LogSoftmax)
    found = [n for n in postorder(loss) if isinstance(n, kinds) and n.operand is state]
    if len(found) != 1:
        return None
    plain = Input("normalised", None, found[0].axes, Role.DATA)
    rest = rewrite([loss], lambda node: plain if node is found[0] else None)[0]
    along = Input("ẋ", model.output.index, state.axes, Role.TANGENT)
    moves = {state: along, plain: Input("moved", None, found[0].axes, Role.DATA)}
    first = jvp(rest, moves)
    if first is None or jvp(first, moves) is not None:
        return None
    return softmax(found[0])
