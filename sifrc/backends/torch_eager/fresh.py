"""New tensors over groups, which are filled part by part."""

from __future__ import annotations

from sifrc.backends.names import groups_name, subscript_text
from sifrc.backends.torch_eager.access import LIKE, Names
from sifrc.lower.statements import Fresh

__all__ = ["fresh_text"]


def fresh_text(statement: Fresh, names: Names) -> str:
    """The statement that makes a tensor for as many groups as there are."""
    name, family = names.ref(statement.target.ref), names.family(statement.target)
    subscript = statement.target.ref.subscript
    rank = len(family.shapes[0][1])
    count = str(family.shapes[0][1][0])
    if subscript is not None:
        count = f"{groups_name(family)}[{subscript_text(subscript)}]"
    make = "new_zeros" if statement.zeros else "new_empty"
    if statement.like is None:
        return f"{name} = {LIKE}.{make}(({', '.join([count] * rank)}{',' if rank == 1 else ''}))"
    like = names.array(statement.like)
    return f"{name} = {like}.{make}(({count}, *{like}.shape))"
