"""The spec that ``sifrc new`` writes: complete, commented, and valid as it is."""

from __future__ import annotations

from sifrc.errors import SpecError
from sifrc.spec.names import name_problem

__all__ = ["starter_spec"]

_STARTER = """\
# A network, its loss and a second-order method. `sifrc check FILE` says whether it is right.
sifrc: 1                              # version of this format
name: {name}

network:
  input: {{name: image, size: 64}}      # 8 x 8 pixels
  layers:                             # each takes the layer before, unless `inputs: [...]` says otherwise
    - {{name: fc1, type: dense, units: 48}}
    - {{name: act1, type: activation, function: leaky_relu, parameters: {{slope: 0.1}}}}
    - {{name: fc2, type: dense, units: 24, activation: tanh}}          # short form
    # your own function: {{name: act, type: activation, expression: "x*tanh(b*x)", parameters: {{b: 0.7}}}}
    # a skip connection: {{name: sum1, type: add, inputs: [act1, act2]}}
    - {{name: fc3, type: dense, units: 10}}

loss: {{function: cross_entropy}}       # or {{expression: "sum((y - t)**4)/4"}}: y the output, t the target
regularization: {{state: 1.0e-3}}       # none, spectral, or by state: {{state: {{act1: 1.0e-3, fc2: 0.02}}}}
init: he                              # he, glorot, sparse, zeros or constant; also per layer
seed: 0
dtype: float32                        # float32, float64 or bfloat16

training: {{data: digits, epochs: 10, batch: 1}}
method: {{name: esn, variant: randomised, precision: rank_one, learning_rate: 0.01}}
target: {{backend: numba, operators: [loss, gradient, hessian_vector_product, newton_direction]}}
"""


def starter_spec(name: str) -> str:
    """Return a commented spec to start from, for the digits data.

    Args:
        name: name of the spec; an identifier.

    Raises:
        SpecError: the name cannot be used.

    Example:
        >>> starter_spec("digits").splitlines()[2]
        'name: digits'
    """
    problem = name_problem(name)
    if problem is not None:
        raise SpecError(problem[0], hint=problem[1])
    return _STARTER.format(name=name)
