"""A hand-written module with the interface of a generated Numba module: softmax regression with momentum.

The state holds an array, an int and a float, so that a state that is lost or rounded shows.
"""

import os
import time

import numpy as np

SPEC = {"name": "fake", "layers": [{"name": "fc1", "units": 3}]}
INPUTS, CLASSES = 5, 3


def init(seed=None):
    rng = np.random.default_rng(seed)
    return {"fc1.weight": rng.standard_normal((CLASSES, INPUTS)) * 0.1, "fc1.bias": np.zeros(CLASSES)}


class State:
    def __init__(self, params, *, learning_rate=0.05, momentum=0.5, break_at=-1):
        if momentum >= 1:
            raise ValueError(f"momentum: expected a number below 1, got {momentum}")
        self.velocity = {key: np.zeros_like(value) for key, value in params.items()}
        self.learning_rate, self.momentum, self.steps, self.average = learning_rate, momentum, 0, 0.0
        self.break_at = break_at

    def state_dict(self):
        arrays = {"velocity." + key: value for key, value in self.velocity.items()}
        return {
            **arrays,
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "steps": self.steps,
            "average": self.average,
        }

    def load_state_dict(self, d):
        # Keeps the arrays it is given, as a generated module may; the caller must not share them.
        self.velocity = {key: d["velocity." + key] for key in self.velocity}
        self.learning_rate, self.momentum = d["learning_rate"], d["momentum"]
        self.steps, self.average = d["steps"], d["average"]


def predict(params, inputs):
    return inputs @ params["fc1.weight"].T + params["fc1.bias"]


def _log_softmax(outputs):
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def loss(params, inputs, targets):
    return float(-_log_softmax(predict(params, inputs))[np.arange(len(targets)), targets].mean())


def step(params, state, inputs, targets):
    if state.steps == state.break_at:
        raise FloatingPointError("layer fc1: the update of the weight is not finite")
    before = loss(params, inputs, targets)
    residual = np.exp(_log_softmax(predict(params, inputs)))
    residual[np.arange(len(targets)), targets] -= 1
    gradient = {"fc1.weight": residual.T @ inputs / len(targets), "fc1.bias": residual.mean(axis=0)}
    for key, value in gradient.items():
        state.velocity[key] *= state.momentum
        state.velocity[key] += value
        # A rate that depends on the whole past makes the last bit depend on it as well.
        params[key] -= state.learning_rate / (1 + 0.01 * state.average) * state.velocity[key]
    state.steps += 1
    state.average += (before - state.average) / state.steps
    return before


def train_epoch(params, state, inputs, targets, order, batch=1):
    time.sleep(float(os.environ.get("FAKE_CHUNK_SECONDS", "0")))
    total = 0.0
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        total += len(chosen) * step(params, state, inputs[chosen], targets[chosen])
    return total / len(order)
