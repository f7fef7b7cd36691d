"""The end of a run that does not end by itself: what is saved, and what is said."""

from __future__ import annotations

import signal

from sifrc.errors import SifrcError, TrainingError
from sifrc.training.interruption import TrainingInterrupted
from sifrc.training.run import Run

__all__ = ["stopped"]

_RESUME = "a run with resume goes on from there"


def stopped(run: Run, error: BaseException, number: int) -> BaseException:
    """Save what can be saved, and say so.

    Args:
        run: that an exception came out of.
        error: the exception.
        number: of the signal, where it was one.

    Returns:
        What to raise in its place, or the exception itself: one that is no :class:`Exception`, as
        ``SystemExit``, means more than this run.
    """
    refused = isinstance(error, FloatingPointError)
    trouble = _save(run, refused=refused)
    disk = run.on_disk() + (f" ({trouble})" if trouble else "")
    going_on = f"{disk}; {_RESUME}" if run.has_checkpoint else disk
    if isinstance(error, KeyboardInterrupt):
        how = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        return TrainingInterrupted(f"{how} {run.how_far()}; {going_on}", number)
    if not isinstance(error, Exception):
        return error
    if refused:
        # The same run would come to the same step.
        remedy = "a run with start begins from there, e.g. with a smaller learning rate or more damping"
        if not run.has_begun:
            remedy = "other initial parameters or other data may help"
        elif not run.has_checkpoint:
            remedy = "a smaller learning rate or more damping may help"
        return TrainingError(f"training stopped {run.where()}: {error}", hint=f"{disk}; {remedy}")
    if isinstance(error, SifrcError):
        if not run.has_checkpoint:
            return error
        return TrainingError(
            f"training stopped {run.where()}: {error.message}",
            location=error.location,
            hint="; ".join(part for part in (error.hint, going_on) if part),
        )
    what = "out of memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
    return TrainingError(f"training stopped {run.where()}: {what}", hint=going_on)


def _save(run: Run, *, refused: bool) -> str:
    """Bring the run to a moment between two steps and save that; why it could not, if so."""
    try:
        run.settle(refused=refused)
        if run.has_checkpoint:
            run.save()
    except Exception as error:
        text = error.message if isinstance(error, SifrcError) else f"{type(error).__name__}: {error}"
        return f"what came after it is not saved: {text}"
    return ""
