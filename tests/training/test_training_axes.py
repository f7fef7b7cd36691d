"""Networks whose input has several axes, in the loop: they get rows of the data set with those axes."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
from grouped_runs import close
from training_helpers import plain_python, stop_after

import sifrc
from sifrc.data import Dataset
from sifrc.errors import TrainingError
from sifrc.training import Plateau, TrainingInterrupted, fit, make_trainable, train
from sifrc.training.checkpoint import load_checkpoint

SETTINGS = {"epochs": 2, "batch": 30, "seed": 11, "progress": False}
SHAPE = (1, 5, 1)


def checked(inputs):
    """Inputs that have the axes; as rows again, which the hand-written modules take."""
    assert inputs.shape[1:] == SHAPE, inputs.shape
    return inputs.reshape((len(inputs), 5))


def numba_with_axes(fake):
    """The hand-written module, refusing rows."""
    size = {"network": {"input": {"name": "image", "size": list(SHAPE)}}}
    return SimpleNamespace(
        SPEC={**fake.SPEC, **size},
        init=fake.init,
        State=fake.State,
        predict=lambda params, inputs: fake.predict(params, checked(inputs)),
        loss=lambda params, inputs, targets: fake.loss(params, checked(inputs), targets),
        train_epoch=lambda params, state, inputs, *rest, **options: fake.train_epoch(
            params, state, checked(inputs), *rest, **options
        ),
    )


def torch_with_axes(fake):
    """The same of the one for torch, whose optimizer runs the network."""

    class Network(fake.Network):
        def forward(self, inputs):
            return super().forward(checked(inputs))

    size = {"network": {"input": {"name": "image", "size": list(SHAPE)}}}
    return SimpleNamespace(
        SPEC={**fake.SPEC, **size},
        Network=Network,
        initialize=fake.initialize,
        Optimizer=fake.Optimizer,
        predict=lambda params, inputs: fake.predict(params, checked(inputs)),
        loss=lambda params, inputs, targets: fake.loss(params, checked(inputs), targets),
    )


WRAPPED = {"numba": numba_with_axes, "torch": torch_with_axes}


@pytest.mark.parametrize("backend", WRAPPED)
def test_a_module_with_axes_makes_the_run_of_one_without(tmp_path, request, toy, backend):
    fake = request.getfixturevalue(f"fake_{backend}")
    plain = train(fake, backend, toy, directory=tmp_path / "plain", **SETTINGS)
    own = train(WRAPPED[backend](fake), backend, toy, directory=tmp_path / "own", **SETTINGS)
    assert own.last.test_loss < own.rows[0].test_loss
    assert np.delete(own.array(), 1, axis=1).tobytes() == np.delete(plain.array(), 1, axis=1).tobytes()
    one, other = (load_checkpoint(tmp_path / name / "checkpoint.npz") for name in ("plain", "own"))
    for key, value in one.parameters.items():
        assert value.tobytes() == other.parameters[key].tobytes()
    assert one.identity["data set"] == other.identity["data set"]


@pytest.mark.parametrize("backend", WRAPPED)
def test_rows_and_arrays_with_the_axes_are_the_same_samples(request, toy, backend):
    trainable = make_trainable(WRAPPED[backend](request.getfixturevalue(f"fake_{backend}")), backend)
    images = toy.test_inputs.reshape(-1, *SHAPE)
    assert trainable.loss(images, toy.test_targets) == trainable.loss(toy.test_inputs, toy.test_targets)
    assert (trainable.predict(images) == trainable.predict(toy.test_inputs)).all()


@pytest.mark.parametrize("backend", WRAPPED)
def test_stopped_and_resumed_run_is_bit_identical(tmp_path, request, toy, backend):
    module = WRAPPED[backend](request.getfixturevalue(f"fake_{backend}"))
    fit(make_trainable(module, backend), toy, directory=tmp_path / "whole", **SETTINGS)
    with pytest.raises(TrainingInterrupted):
        stopping = stop_after(make_trainable(module, backend), 5)
        fit(stopping, toy, directory=tmp_path / "cut", checkpoint_every=0, **SETTINGS)
    fit(make_trainable(module, backend), toy, directory=tmp_path / "cut", resume=True, **SETTINGS)
    whole, cut = (load_checkpoint(tmp_path / name / "checkpoint.npz") for name in ("whole", "cut"))
    assert all(v.tobytes() == cut.parameters[k].tobytes() for k, v in whole.parameters.items())


def test_tensors_are_made_once(request, toy, fake_torch):
    """The axes are a view: what is kept by the array's identity stays."""
    trainable = make_trainable(torch_with_axes(fake_torch), "torch")
    first = trainable._samples(toy.train_inputs)
    assert trainable._samples(toy.train_inputs).data_ptr() == first.data_ptr()
    assert len(trainable._tensors) == 1


# Optimizers of torch on any network


def per_row(torch):
    """A linear layer at every one of 5 places, and one over all of them; the image has to have axes."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = torch.nn.Linear(1, 2, dtype=torch.float64)
            self.fc2 = torch.nn.Linear(10, 3, dtype=torch.float64)

        def forward(self, inputs):
            assert inputs.shape[1:] == (5, 1)
            return self.fc2(self.fc1(inputs).flatten(1))

    return Network


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_baselines_take_the_shape_of_a_sample(tmp_path, toy, name):
    torch = pytest.importorskip("torch")
    baselines = pytest.importorskip("sifrc.training.baselines")
    loss = torch.nn.functional.cross_entropy

    def make(shape):
        return getattr(baselines, name)(per_row(torch), loss, lr=0.05, seed=1, shape=shape)

    history = fit(make((5, 1)), toy, directory=tmp_path, **SETTINGS)
    assert history.last.test_loss < history.rows[0].test_loss
    assert make((5, 1)).identity["shape of a sample"] == "(5, 1)"
    assert "shape of a sample" not in make((5,)).identity
    # A sample of other axes is another network, whatever its parameters are.
    with pytest.raises(TrainingError, match="another shape of a sample"):
        fit(make((5, 1, 1)), toy, directory=tmp_path, resume=True, **SETTINGS)


# Generated modules

NETWORKS = {
    "rows": (
        {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
        {"name": "flat", "type": "flatten"},
        {"name": "fc2", "type": "dense", "units": 3},
    ),
    "flat": (
        {"name": "flat", "type": "flatten"},
        {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
        {"name": "fc2", "type": "dense", "units": 3},
    ),
    "plain": (
        {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
        {"name": "fc2", "type": "dense", "units": 3},
    ),
}


def document(network, size):
    return {
        "sifrc": 1,
        "name": "axes",
        "network": {"input": {"name": "image", "size": size}, "layers": deepcopy(list(NETWORKS[network]))},
        "loss": "cross_entropy",
        "dtype": "float64",
        "method": {"name": "grouped_newton", "period": 4},
    }


@pytest.fixture(scope="module")
def images():
    """Three noisy classes of images of 2 x 3 pixels, as rows."""
    rng = np.random.default_rng(8)
    centres = rng.standard_normal((3, 6))

    def part(count):
        labels = rng.integers(0, 3, count)
        return centres[labels] + 0.7 * rng.standard_normal((count, 6)), labels

    return Dataset("images", "made in a test", *part(300), *part(80), classes=3)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")

    def build(backend, network, size):
        pytest.importorskip("torch")
        with plain_python(backend):
            return sifrc.compile(document(network, size), backend, operators=(), cache=folder)

    return build


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_network_over_rows_learns(tmp_path, build, images, backend):
    """Curvature batches, plateau and log get the same axes."""
    module = build(backend, "rows", [2, 3])
    assert module.SHAPES["fc1.weight"] == (4, 3) and module.SHAPES["fc2.weight"] == (3, 8)
    more = {"curvature_batch": 70, "plateau": Plateau()}
    with plain_python(backend):
        history = train(module, backend, images, directory=tmp_path, **more, **SETTINGS)
    assert history.last.test_accuracy > 0.6
    assert (tmp_path / "summaries.npz").is_file()


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_flatten_before_everything_changes_no_number(tmp_path, build, images, backend):
    """A network over images that begins with flatten is that over their rows."""
    found = []
    for network, size in (("flat", [2, 3]), ("flat", [3, 2]), ("plain", 6)):
        module = build(backend, network, size)
        start = {"initial": {k: 0.3 * np.cos(np.arange(np.prod(s))).reshape(s) for k, s in SIZES.items()}}
        with plain_python(backend):
            history = train(module, backend, images, directory=tmp_path / str(size), **start, **SETTINGS)
        checkpoint = load_checkpoint(tmp_path / str(size) / "checkpoint.npz")
        found.append((history, checkpoint.parameters))
    for history, parameters in found[:2]:
        assert close(history.array()[:, 3:], found[2][0].array()[:, 3:])
        assert all(close(value, found[2][1][key]) for key, value in parameters.items())


SIZES = {"fc1.weight": (4, 6), "fc1.bias": (4,), "fc2.weight": (3, 4), "fc2.bias": (3,)}


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_all_of_it_from_a_spec(tmp_path, images, backend):
    """Data of an archive, compiling and training in one call."""
    pytest.importorskip("torch")
    path = tmp_path / "images.npz"
    arrays = {"train_X": images.train_inputs.reshape(-1, 2, 3), "test_X": images.test_inputs}
    np.savez(path, train_y=images.train_targets, test_y=images.test_targets, **arrays)
    with plain_python(backend):
        history = sifrc.train(
            document("rows", [2, 3]), path, backend=backend, cache=tmp_path / "cache", **SETTINGS
        )
    assert history.last.test_loss < history.rows[0].test_loss
