"""What is asked of single samples exists where they do not act on each other."""

from __future__ import annotations

from sifrc.errors import DerivationError
from sifrc.model import Model

__all__ = ["check_separable"]


def check_separable(model: Model, what: str) -> None:
    """Refuse what has a value for each sample, where a state is a statistic of the batch.

    Args:
        model: the model.
        what: is asked for; it begins the sentence.

    Raises:
        DerivationError: samples act on each other.
    """
    if model.normalization is not None:
        raise DerivationError(
            f"{what} of single samples, and the mean of this loss divides by the targets of all that count",
            location=model.spec.loss.location,
            hint="reduction: sum divides by nothing",
        )
    found = next((c for c in model.constraints if c.of_batch), None)
    if found is None:
        return
    layer = next(layer for layer in model.spec.layers if layer.name == found.layers[0])
    kept = any(buffer.layer == layer.name for buffer in model.buffers)
    running = "mode: evaluation takes running statistics, which are constants; " if kept else ""
    raise DerivationError(
        f"{what} of single samples, which act on each other in {layer.kind} layer '{layer.name}'",
        location=layer.location,
        hint=f"{running}gradient, hessian_vector_product, gauss_newton_vector_product and summary are exact "
        "there too",
    )
