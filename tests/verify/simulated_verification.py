"""Verifies CUDA modules in Numba's simulator, right ones and wrong ones; prints what is found as JSON.

In an empty folder, in a process whose environment does not ask for the simulator.
"""

import json
import os
import sys
import warnings

import numpy as np

import sifrc
from sifrc.simulation import VARIABLE, SimulationWarning

OPERATORS = ("gradient", "hessian_vector_product", "newton_direction", "trace")


def spec(**changes):
    layers = [{"name": "fc1", "type": "dense", "units": 3, "activation": "softplus"}]
    layers.append({"name": "fc2", "type": "dense", "units": 2})
    network = {"input": {"name": "x", "size": 3}, "layers": layers}
    head = {"sifrc": 1, "name": "small", "network": network, "loss": "cross_entropy"}
    head |= {"regularization": {"state": 0.01}, "curvature": ["sampled_fisher"]}
    return head | {"target": {"backend": "cuda", "operators": [*OPERATORS]}} | changes


def rows(report):
    return {
        "passed": report.passed,
        "rows": {row.quantity: [row.result, row.note] for row in report.rows if row.result != "not checked"},
    }


def wrong(module, name, change):
    """The module with a result that is changed, on the host and back on the device."""
    from numba import cuda

    right = getattr(module, name)

    def changed(*arguments):
        return {key: cuda.to_device(change(value.copy_to_host())) for key, value in right(*arguments).items()}

    setattr(module, name, changed)
    try:
        return rows(
            sifrc.verify(
                {**spec(), "target": {"backend": "cuda", "operators": [name]}}, levels=[3], module=module
            )
        )
    finally:
        setattr(module, name, right)


def main():
    found = {"before": [VARIABLE in os.environ, "numba.cuda" in sys.modules]}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found["right"] = rows(sifrc.verify(spec(), levels=[3]))
    found["said"] = [
        str(one.message) for one in said if issubclass(one.category, (SimulationWarning, RuntimeWarning))
    ]
    warnings.simplefilter("ignore")
    module = sifrc.compile(spec(), method="none")
    found["off"] = wrong(module, "gradient", lambda value: value * np.float32(1.001))
    found["dtype"] = wrong(module, "gradient", lambda value: value.astype(np.float64))
    wide = spec()["network"] | {"input": {"name": "x", "size": 200}}
    several = spec()["network"] | {"input": {"name": "x", "size": [150, 2]}}
    several["layers"] = [
        several["layers"][0] | {"units": 1},
        {"name": "all", "type": "flatten"},
        several["layers"][1],
    ]
    for name, network in (("parameters", wide), ("entries", several)):
        try:
            sifrc.verify(spec(network=network, curvature=["ggn"]), levels=[3])
        except sifrc.SifrcError as error:
            found[name] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
