"""Errors a user can cause, all subclasses of :class:`SifrcError`.

An error says where (a :class:`Location` in the spec, when there is one), what is wrong, and what
would be accepted (the hint). The text of an error is its diagnostic, caret included.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "BackendError",
    "DataError",
    "DerivationError",
    "Location",
    "MethodError",
    "ModelError",
    "ModuleImportError",
    "OperatorError",
    "SifrcError",
    "SpecError",
    "TrainingError",
    "VerificationError",
    "words_of",
]


_LONGEST = 400
"""Characters of a line that a message shows."""
_BEFORE = 60
"""Of these, before a place that is further to the right."""


@dataclass(frozen=True)
class Location:
    """A place in a spec file.

    Args:
        file: name of the file as the user gave it, ``"<spec>"`` for text without one.
        line: line number, from 1.
        column: column of the first character, from 1.
        end_column: column after the last character, same line.
        text: the whole source line, without its newline.
    """

    file: str
    line: int
    column: int
    end_column: int
    text: str = field(default="", repr=False)


class SifrcError(Exception):
    """Base of every error that a user of sifrc can cause.

    Args:
        message: what is wrong, one line.
        location: where, if the error belongs to a place in a spec.
        hint: what would be accepted, one line; printed after ``= ``.
        label: short text beside the caret, e.g. ``did you mean 'softplus'?``.

    Example:
        >>> print(SifrcError("sizes differ", hint="give both 10 units"))
        error: sizes differ
          = give both 10 units
    """

    def __init__(
        self,
        message: str,
        *,
        location: Location | None = None,
        hint: str | None = None,
        label: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.location = location
        self.hint = hint
        self.label = label

    def __str__(self) -> str:
        lines = [f"error: {self.message}"]
        gutter = ""
        if self.location is not None:
            where = self.location
            number = str(where.line)
            gutter = " " * len(number)
            lines.append(f"{gutter}--> {where.file}:{where.line}:{where.column}")
            if where.text:
                text, column, width = _excerpt(where)
                caret = " " * column + "^" * width
                note = f" {self.label}" if self.label else ""
                lines += [f"{gutter} |", f"{number} | {text}", f"{gutter} | {caret}{note}"]
        elif self.label:
            lines.append(f"  {self.label}")
        if self.hint:
            lines.append(f"{gutter or ' '} = {self.hint}")
        return "\n".join(lines)


def _excerpt(where: Location) -> tuple[str, int, int]:
    """The line, cut where it is long; where the place begins in it, and how long it is."""
    column, width = where.column - 1, max(1, where.end_column - where.column)
    if len(where.text) <= _LONGEST:
        return where.text, column, width
    start = max(0, column - _BEFORE)
    text = where.text[start : start + _LONGEST]
    ends = "…" if start else "", "…" if start + _LONGEST < len(where.text) else ""
    column += len(ends[0]) - start
    return ends[0] + text + ends[1], column, min(width, len(ends[0]) + len(text) - column)


def words_of(error: Exception) -> str:
    """What any exception says: one of our own its message, another one its type too."""
    return error.message if isinstance(error, SifrcError) else f"{type(error).__name__}: {error}"


class SpecError(SifrcError):
    """The spec cannot be read: syntax, keys, types, names, sizes or the graph of layers."""


class ModelError(SifrcError):
    """The spec is well formed and yet no model: e.g. an expression that cannot be differentiated."""


class ModuleImportError(SifrcError):
    """A torch module has no spec: it cannot be traced, or does what no layer does; the message says where."""


class DerivationError(SifrcError):
    """A requested quantity cannot be derived for this model; the message names the condition."""


class MethodError(SifrcError):
    """A method does not exist, does not apply to this model, or was given a bad option."""


class BackendError(SifrcError):
    """A backend does not exist, lacks a capability, or was given a bad option."""


class VerificationError(SifrcError):
    """A derived quantity or a generated module disagrees with its oracle, or there is no such check."""


class DataError(SifrcError):
    """A data set is missing, unreadable, or does not fit the network."""


class TrainingError(SifrcError):
    """Training cannot start, go on or be resumed."""


class OperatorError(SifrcError):
    """A linear operator cannot be made, or applied to what it was given."""
