"""The end of a run: what is saved when something stops it, and what is said."""

from __future__ import annotations

import signal
import warnings

from sifrc.errors import SifrcError, TrainingError, words_of
from sifrc.training.checkpoint import CHECKPOINT_FILE
from sifrc.training.history import History
from sifrc.training.interruption import TrainingInterrupted
from sifrc.training.run import Run

__all__ = ["stopped", "warn_of_loss"]

_LOST_SHARE = 0.5  # of the fall of the training loss


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
    disk = _on_disk(run) + (f" ({trouble})" if trouble else "")
    going_on = disk if run.saved is None else f"{disk}; a run with resume goes on from there"
    if isinstance(error, KeyboardInterrupt):
        how = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        return TrainingInterrupted(f"{how} {_how_far(run)}; {going_on}", number)
    if not isinstance(error, Exception):
        return error
    if refused:
        return TrainingError(f"training stopped {_where(run)}: {error}", hint=f"{disk}; {_remedy(run)}")
    if isinstance(error, SifrcError):
        if run.saved is None:
            return error
        return TrainingError(
            f"training stopped {_where(run)}: {error.message}",
            location=error.location,
            hint="; ".join(part for part in (error.hint, going_on) if part),
        )
    what = "out of memory" if isinstance(error, MemoryError) else words_of(error)
    return TrainingError(f"training stopped {_where(run)}: {what}", hint=going_on)


def warn_of_loss(history: History) -> None:
    """Say so, if much of what was learned is lost again."""
    first, best, last = history.rows[0], history.best, history.last
    gained, kept = first.train_loss - best.train_loss, first.train_loss - last.train_loss
    if gained > 0 and not kept >= (1 - _LOST_SHARE) * gained:
        warnings.warn(
            f"the training loss was {best.train_loss:.4g} after epoch {best.epoch} and is "
            f"{last.train_loss:.4g} after epoch {last.epoch}; a smaller learning rate or more damping "
            "may help",
            stacklevel=4,
        )


def _save(run: Run, *, refused: bool) -> str:
    """Bring the run to a moment between two steps and save that; why it could not, if so."""
    try:
        run.settle(refused=refused)
        if run.saved is not None:
            run.save()
    except Exception as error:
        return f"what came after it is not saved: {words_of(error)}"
    return ""


def _where(run: Run) -> str:
    if not run.has_begun:
        return "before the first step"
    if run.complete:
        return "after the last epoch"
    epoch = run.position.epoch + 1
    return f"in the measurement after epoch {epoch}" if run.epoch_is_trained else f"in epoch {epoch}"


def _how_far(run: Run) -> str:
    """The place in samples, for signals, which come anywhere."""
    if not run.has_begun or run.complete:
        return _where(run)
    return f"in epoch {run.position.epoch + 1}, after {run.position.sample} of {run.samples} samples"


def _on_disk(run: Run) -> str:
    """Where the newest checkpoint is."""
    if not run.has_folder:
        return "nothing is saved, since the run has no folder"
    if run.saved is None:
        return "nothing was trained, and no file was changed"
    epoch, sample = run.saved.epoch, run.saved.sample
    inside = f" and {sample} samples" if sample else ""
    which = "saved in" if run.saved == run.position else "the last good checkpoint is"
    return f"{which} {CHECKPOINT_FILE}, after {epoch} epoch{'' if epoch == 1 else 's'}{inside}"


def _remedy(run: Run) -> str:
    """What may help after a refused step: the same run would come to it again."""
    if not run.has_begun:
        return "other initial parameters or other data may help"
    if run.saved is None:
        return "a smaller learning rate or more damping may help"
    return "a run with start begins from there, e.g. with a smaller learning rate or more damping"
