"""The life of an optimizer: the faults that use had found, and a sample of all rows, nothing compiled."""

from __future__ import annotations

import pytest
from optimizers import Report, life
from optimizers_modules import modules

FAULTS = {
    "lr: nan": ("rank one", "ea_cg"),
    "lr: inf": ("direct", "grouped"),
    "lr: -1": ("mk", "kfi"),
    "lr: NumPy float32": ("mk", "grouped"),
    "lr: 0-d tensor": ("mk", "direct"),
    "lr: True": ("rank one",),
    "lr: so large that the step overflows": ("mk", "ea_cg", "grouped", "recursive"),
    "period: one less": ("direct", "grouped"),
    "alpha: far above": ("ea_cg",),
    "momentum: above": ("kfi", "grouped"),
    "decay: the excluded end 1.0": ("kfi",),
    "cg_iterations: half a number more": ("ea_cg",),
    "inputs with inf": ("mk", "direct", "grouped"),
    "a parameter at the end of the dtype": ("mk", "grouped"),
    "state dict of": ("mk", "ea_cg"),
}
OF_TORCH = {
    "frozen": ("mk", "direct", "recursive", "kfi", "grouped", "exact"),
    "torch.distributed.checkpoint": ("mk", "ea_cg", "grouped"),
    "get_optimizer_state_dict": ("mk", "direct", "grouped"),
    "weights_only": ("direct",),
    "steps within": ("ea_cg", "grouped"),
    "Ctrl-C": ("direct", "grouped"),
    "the model to": ("kfi",),
}
OF_NUMBA = {
    "np.savez": ("mk", "direct", "grouped"),
    "state.learning_rate": ("mk",),
    "of one call": ("mk", "direct", "grouped"),
    "overflows in a loop": ("mk", "kfi", "grouped"),
}
CASES = [
    (row, method, backend)
    for table, backends in (
        (FAULTS, ("torch", "numba")),
        (OF_TORCH, ("torch",)),
        (OF_NUMBA, ("numba",)),
    )
    for row, methods in table.items()
    for method in methods
    for backend in backends
]
SAMPLE = [
    (method, backend, (2 * place + number, 10))
    for number, backend in enumerate(("torch", "numba"))
    for place, method in enumerate(("mk", "direct", "kfi", "grouped", "recursive"))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with modules(tmp_path_factory.mktemp("life")) as found:
        yield found


@pytest.mark.parametrize(("row", "method", "backend"), CASES)
def test_a_fault_is_gone(row, method, backend, folder):
    """Rows with this name: as PyTorch's users expect, or one clear error with nothing changed."""
    report = Report()
    life(method, backend, folder, report, only=row)
    assert report.findings == []
    assert report.counts["cases"] > 0


@pytest.mark.parametrize(("method", "backend", "part"), SAMPLE)
def test_a_sample_of_all_rows(method, backend, part, folder):
    """Each row on one method of either backend; ``optimizers.py`` crosses all of them."""
    report = Report()
    life(method, backend, folder, report, part=part)
    assert report.findings == []
    assert report.counts["cases"] > 10


@pytest.mark.slow
def test_compiled_steps_do_the_same(folder):
    """A sample with the compiler of Numba."""
    report = Report()
    life("mk", "numba", folder, report, jit=True, part=(0, 4))
    assert report.findings == []
