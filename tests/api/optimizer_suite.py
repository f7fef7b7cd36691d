"""The cases of PyTorch's own tests of optimizers, on classes that are described by its ``OptimizerInfo``.

PyTorch drives an optimizer by gradients that others have computed. What is looked at here is the same, with
steps that take a batch: each case has the name that it has there, is written for a small network, and raises
``AssertionError`` where the optimizer behaves in another way. :data:`OUTSIDE` has those that a generated
optimizer does not pass, with the reason; they are run too, and must fail for it.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

__all__ = ["CASES", "OUTSIDE", "Case", "batch_of", "model_of"]

Case = Callable[[Any, torch.device, torch.dtype], None]

_CASES: dict[str, Case] = {}


def _case(function: Case) -> Case:
    _CASES[function.__name__.removeprefix("_")] = function
    return function


def model_of(
    device: Any = "cpu", dtype: torch.dtype = torch.float64, *, contiguous: bool = True
) -> nn.Module:
    """The network of all cases."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4)).to(device, dtype)
    if not contiguous:
        for layer in (model[0], model[2]):
            layer.weight = nn.Parameter(torch.stack([layer.weight.detach()] * 2, -1)[..., 0])
            assert not layer.weight.is_contiguous()
    return model


def batch_of(device: Any = "cpu", dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Inputs and classes."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(12, 4, generator=generator, dtype=torch.float64).to(device, dtype)
    return inputs, (torch.arange(12) % 4).to(device)


def _run(optimizer: Any, batch: Any, steps: int) -> Tensor:
    """Some steps; the objective before the last one."""
    for _ in range(steps):
        objective = optimizer.step(*batch)
    return objective.detach()  # type: ignore[no-any-return]


def _inputs(info: Any, device: Any) -> Iterator[dict[str, Any]]:
    for given in info.optim_inputs_func(device=device):
        yield dict(given.kwargs)


def _made(info: Any, device: Any, dtype: Any, **more: Any) -> Iterator[tuple[nn.Module, Any, Any]]:
    """Model, optimizer and batch for every input of the description."""
    for kwargs in _inputs(info, device):
        model = model_of(device, dtype)
        yield model, info.optim_cls(model, **(kwargs | more)), batch_of(device, dtype)


def _halves(model: nn.Module, **second: Any) -> list[dict[str, Any]]:
    return [{"params": list(model[0].parameters())}, {"params": list(model[2].parameters()), **second}]


def _values(model: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in model.parameters()]


def _equal(first: Any, second: Any) -> None:
    """Nested state is equal to the bit."""
    assert type(first) is type(second)
    if isinstance(first, Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key, value in first.items():
            _equal(value, second[key])
    elif isinstance(first, list):
        for one, other in zip(first, second, strict=True):
            _equal(one, other)
    else:
        assert first == second


def _refused(info: Any, device: Any, dtype: Any, **kwargs: Any) -> None:
    """A flag does what it says."""
    for _, optimizer, batch in _made(info, device, dtype, **kwargs):
        _run(optimizer, batch, 2)


# -- descriptions, errors, printing


@_case
def _test_optim_infos_do_not_specify_global_cliquey_kwargs(info: Any, device: Any, dtype: Any) -> None:
    for kwargs in _inputs(info, device):
        assert not {"foreach", "fused", "differentiable"} & kwargs.keys()


@_case
def _test_errors(info: Any, device: Any, dtype: Any) -> None:
    for wrong in info.optim_error_inputs_func(device=device, dtype=dtype):
        given = wrong.optimizer_error_input
        try:
            info.optim_cls(given.params, **given.kwargs)
        except wrong.error_type as error:
            assert wrong.error_regex in str(error), f"{given.desc}: {error}"
        else:
            raise AssertionError(f"{given.desc} is taken")


@_case
def _test_optimizer_can_be_printed(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, _ in _made(info, device, dtype):
        assert "lr" in repr(optimizer)


# -- steps


@_case
def _test_forloop_goes_right_direction(info: Any, device: Any, dtype: Any) -> None:
    for contiguous in (True, False):
        for schedulers in (*info.scheduler_inputs, []):
            for kwargs in _inputs(info, device):
                model, batch = model_of(device, dtype, contiguous=contiguous), batch_of(device, dtype)
                optimizer = info.optim_cls(model, **kwargs)
                _goes_down(optimizer, [scheduler(optimizer) for scheduler in schedulers], batch)


def _goes_down(optimizer: Any, schedulers: Any, batch: Any) -> None:
    first = _run(optimizer, batch, 1)
    for _ in range(10):
        last = _run(optimizer, batch, 1)
        for scheduler in schedulers:
            scheduler.step(last) if isinstance(scheduler, ReduceLROnPlateau) else scheduler.step()
    assert last < first


@_case
def _test_param_group_with_lrscheduler_goes_right_direction(info: Any, device: Any, dtype: Any) -> None:
    for schedulers in info.scheduler_inputs:
        model = model_of(device, dtype)
        optimizer = info.optim_cls(model, groups=_halves(model, lr=0.01))
        _goes_down(optimizer, [scheduler(optimizer) for scheduler in schedulers], batch_of(device, dtype))


@_case
def _test_tensor_lr(info: Any, device: Any, dtype: Any) -> None:
    for kwargs in _inputs(info, device):
        found = []
        for lr in (0.02, torch.tensor(0.02, dtype=torch.float64)):
            model = model_of(device, dtype)
            _run(info.optim_cls(model, **kwargs | {"lr": lr}), batch_of(device, dtype), 3)
            found.append(_values(model))
        _equal(*found)


@_case
def _test_param_groups_weight_decay(info: Any, device: Any, dtype: Any) -> None:
    for kwargs in _inputs(info, device):
        model = model_of(device, dtype)
        groups = _halves(model, weight_decay=0.0)
        _goes_down(info.optim_cls(model, groups=groups, **kwargs), [], batch_of(device, dtype))


@_case
def _test_param_groups_lr(info: Any, device: Any, dtype: Any) -> None:
    for kwargs in _inputs(info, device):
        model = model_of(device, dtype)
        fixed = [value.detach().clone() for value in model[0].parameters()]
        lr = float(kwargs.pop("lr", 0.01))
        optimizer = info.optim_cls(model, groups=_halves(model, lr=lr), lr=1e-28, **kwargs)
        _goes_down(optimizer, [], batch_of(device, dtype))
        torch.testing.assert_close(fixed, [value.detach() for value in model[0].parameters()])


@_case
def _test_step_is_noop_when_params_have_no_grad(info: Any, device: Any, dtype: Any) -> None:
    for model, optimizer, batch in _made(info, device, dtype):
        model.requires_grad_(False)
        before = _values(model)
        optimizer.step(*batch)
        _equal(_values(model), before)


@_case
def _test_step_is_noop_for_zero_grads(info: Any, device: Any, dtype: Any) -> None:
    inputs, targets = batch_of(device, dtype)
    # One sample as every class, and parameters that are zero: the mean of the gradients is zero.
    inputs, targets = inputs[:1].repeat(4, 1), targets[:4]
    for kwargs in _inputs(info, device):
        model = model_of(device, dtype)
        with torch.no_grad():
            for value in model.parameters():
                value.zero_()
        info.optim_cls(model, **kwargs).step(inputs, targets)
        torch.testing.assert_close(_values(model), [torch.zeros_like(v) for v in model.parameters()])


@_case
def _test_second_order_optims_return_consistent_types(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, batch in _made(info, device, dtype):
        found = [optimizer.step(*batch), optimizer.step(lambda batch=batch: batch)]
        assert all(isinstance(each, Tensor) and each.shape == () for each in found)


@_case
def _test_grad_scaling_autocast(info: Any, device: Any, dtype: Any) -> None:
    plain = [
        _values(model)
        for model, optimizer, batch in _made(info, device, dtype)
        if _run(optimizer, batch, 2) > 0
    ]
    for expected, (model, optimizer, batch) in zip(plain, _made(info, device, dtype), strict=True):
        scaler = torch.amp.GradScaler(torch.device(device).type, init_scale=8.0)
        for _ in range(2):
            scaler.scale(nn.functional.cross_entropy(model(batch[0]), batch[1])).backward()
            scaler.step(optimizer, *batch)
            scaler.update()
        _equal(_values(model), expected)


# -- state


@_case
def _test_non_empty_state(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, batch in _made(info, device, dtype):
        _run(optimizer, batch, 1)
        assert optimizer.state and all(len(each) > 0 for each in optimizer.state.values())


@_case
def _test_state_dict_deterministic(info: Any, device: Any, dtype: Any) -> None:
    for model, optimizer, batch in _made(info, device, dtype):
        _run(optimizer, batch, 3)
        other = copy.deepcopy(model)
        loaded = info.optim_cls(other, lr=0.5)
        loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for _ in range(3):
            _equal(optimizer.step(*batch), loaded.step(*batch))
            _equal(_values(model), _values(other))
        _equal(optimizer.state_dict(), loaded.state_dict())


@_case
def _test_can_load_older_state_dict(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, batch in _made(info, device, dtype):
        _run(optimizer, batch, 1)
        state = copy.deepcopy(optimizer.state_dict())
        for group in state["param_groups"]:
            for flag in info.not_og_supported_flags:
                group.pop(flag, None)
        optimizer.load_state_dict(state)
        _run(optimizer, batch, 1)


@_case
def _test_can_load_from_to_named_state_dict(info: Any, device: Any, dtype: Any) -> None:
    for named in ((True, True), (True, False), (False, True)):
        for kwargs in _inputs(info, device):
            made = []
            for name in named:
                model = model_of(device, dtype)
                members = list(model.named_parameters() if name else model.parameters())
                made.append(info.optim_cls(model, groups=[{"params": members}], **kwargs))
            batch = batch_of(device, dtype)
            _run(made[0], batch, 2)
            made[1].load_state_dict(copy.deepcopy(made[0].state_dict()))
            _run(made[1], batch, 1)
            names = [name for name, _ in model.named_parameters()]
            assert made[1].state_dict()["param_groups"][0]["param_names"] == names


@_case
def _test_save_load_equality_with_weights_only(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, batch in _made(info, device, dtype):
        _run(optimizer, batch, 2)
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        for weights_only in (False, True):
            file.seek(0)
            _equal(torch.load(file, weights_only=weights_only), optimizer.state_dict())


@_case
def _test_load_nontensor_step(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, batch in _made(info, device, dtype):
        _run(optimizer, batch, 1)
        state = copy.deepcopy(optimizer.state_dict())
        for own in state["state"].values():
            own |= {key: int(value) for key, value in own.items() if key == "steps"}
        optimizer.load_state_dict(state)


@_case
def _test_deepcopy_copies_all_public_attrs(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, batch in _made(info, device, dtype):
        _run(optimizer, batch, 2)
        public = [
            {key for key in vars(one) if key[0] != "_"} for one in (optimizer, copy.deepcopy(optimizer))
        ]
        assert public[0] == public[1]


# -- hooks


def _marks(optimizer: Any) -> None:
    optimizer.state["test"] = 1


def _unmarks(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    state["marked"] = state["state"].pop("test", 0) == 1
    return state


@_case
def _test_state_dict_pre_hook(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, _ in _made(info, device, dtype):
        optimizer.register_state_dict_pre_hook(_marks)
        assert optimizer.state_dict()["state"]["test"] == 1


@_case
def _test_state_dict_post_hook(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, _ in _made(info, device, dtype):
        optimizer.register_state_dict_post_hook(_unmarks)
        assert optimizer.state_dict()["marked"] is False


@_case
def _test_state_dict_pre_post_hook(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, _ in _made(info, device, dtype):
        optimizer.register_state_dict_pre_hook(_marks)
        optimizer.register_state_dict_post_hook(_unmarks)
        found = optimizer.state_dict()
        assert found["marked"] is True and "test" not in found["state"]


def _with_lr(lr: float, *, in_place: bool) -> Any:
    def hook(optimizer: Any, state: dict[str, Any]) -> dict[str, Any] | None:
        state = state if in_place else copy.deepcopy(state)
        state["param_groups"][0]["lr"] = lr
        return None if in_place else state

    return hook


@_case
def _test_load_state_dict_pre_hook_and_prepend(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, _ in _made(info, device, dtype):
        state = optimizer.state_dict()
        optimizer.register_load_state_dict_pre_hook(_with_lr(0.002, in_place=True))
        optimizer.load_state_dict(state)
        assert optimizer.param_groups[0]["lr"] == 0.002
        optimizer.register_load_state_dict_pre_hook(_with_lr(0.003, in_place=False), prepend=True)
        optimizer.load_state_dict(state)
        assert optimizer.param_groups[0]["lr"] == 0.002


@_case
def _test_load_state_dict_post_hook(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, batch in _made(info, device, dtype):
        optimizer.register_load_state_dict_post_hook(_marks)
        optimizer.load_state_dict(optimizer.state_dict())
        assert optimizer.state["test"] == 1
        _run(optimizer, batch, 1)


@_case
def _test_load_state_dict_pre_post_hook(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, _ in _made(info, device, dtype):
        seen: list[float] = []
        optimizer.register_load_state_dict_pre_hook(_with_lr(0.003, in_place=False))
        optimizer.register_load_state_dict_post_hook(
            lambda one, seen=seen: seen.append(one.param_groups[0]["lr"])
        )
        optimizer.load_state_dict(optimizer.state_dict())
        assert seen == [0.003]


@_case
def _test_step_pre_hook(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, batch in _made(info, device, dtype):
        _counts(optimizer, optimizer.register_step_pre_hook, batch)


@_case
def _test_step_post_hook(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, batch in _made(info, device, dtype):
        _counts(optimizer, optimizer.register_step_post_hook, batch)


def _counts(optimizer: Any, register: Any, batch: Any) -> None:
    seen: list[Any] = []
    handle = register(lambda one, args, kwargs: seen.append((one, len(args))))
    _run(optimizer, batch, 2)
    handle.remove()
    _run(optimizer, batch, 1)
    assert [one is optimizer for one, _ in seen] == [True, True]


@_case
def _test_step_all_hooks(info: Any, device: Any, dtype: Any) -> None:
    for _, optimizer, batch in _made(info, device, dtype):
        seen: list[int] = []
        handles = [
            register(lambda *_, number=number: seen.append(number))
            for number, register in (
                (0, register_optimizer_step_pre_hook),
                (1, optimizer.register_step_pre_hook),
                (2, optimizer.register_step_post_hook),
                (5, register_optimizer_step_post_hook),
            )
        ]
        try:
            _run(optimizer, batch, 1)
        finally:
            for handle in handles:
                handle.remove()
        _run(optimizer, batch, 1)
        assert seen == [0, 1, 2, 5]


# -- what other optimizers have: each does what its name says, or is among those outside


@_case
def _test_maximize(info: Any, device: Any, dtype: Any) -> None:
    _refused(info, device, dtype, maximize=True)


@_case
def _test_foreach_matches_forloop(info: Any, device: Any, dtype: Any) -> None:
    _refused(info, device, dtype, foreach=True)


@_case
def _test_fused_matches_forloop(info: Any, device: Any, dtype: Any) -> None:
    _refused(info, device, dtype, fused=True)


@_case
def _test_capturable(info: Any, device: Any, dtype: Any) -> None:
    _refused(info, device, dtype, capturable=True)


@_case
def _test_differentiable(info: Any, device: Any, dtype: Any) -> None:
    _refused(info, device, dtype, differentiable=True)


@_case
def _test_complex(info: Any, device: Any, dtype: Any) -> None:
    model = model_of(device, torch.complex128)
    info.optim_cls(model).step(*batch_of(device, torch.complex128))


@_case
def _test_mixed_device_dtype(info: Any, device: Any, dtype: Any) -> None:
    model = model_of(device, torch.float64)
    model[2].float()
    info.optim_cls(model)


@_case
def _test_rosenbrock_sparse(info: Any, device: Any, dtype: Any) -> None:
    for model, optimizer, _ in _made(info, device, dtype):
        for value in model.parameters():
            value.grad = torch.ones_like(value).to_sparse()
        optimizer.step()


@_case
def _test_step_of_gradients(info: Any, device: Any, dtype: Any) -> None:
    for model, optimizer, batch in _made(info, device, dtype):
        nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()


CASES: Mapping[str, Case] = MappingProxyType(_CASES)
"""Name of a case, as in PyTorch's ``test/test_optim.py`` where it is there -> the case."""

_NO_GRADIENT = (
    "a step takes a batch and derives its gradient and curvature; what others put into .grad is not read"
)
_WHOLE = "the update is made of operations on whole tensors as it is"

OUTSIDE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "test_maximize": ("a step descends", "a step descends; compile the negative loss"),
        "test_foreach_matches_forloop": ("whole tensors", _WHOLE),
        "test_fused_matches_forloop": ("whole tensors", _WHOLE),
        "test_capturable": ("on the host", "whether a step is refused is decided on the host"),
        "test_differentiable": (
            "in place",
            "a step changes parameters in place; torch.func differentiates the public functions",
        ),
        "test_complex": ("expected float32, float64 or bfloat16", "networks of real numbers"),
        "test_mixed_device_dtype": ("one for all", "one dtype and one device for all parameters"),
        "test_rosenbrock_sparse": ("inputs", _NO_GRADIENT),
        "test_step_of_gradients": ("inputs", _NO_GRADIENT),
        "test_load_nontensor_step": (
            "expected a tensor",
            "counts of steps have always been tensors; anything else in their place is refused",
        ),
    }
)
"""Cases outside of what a generated optimizer does -> what its error says, and the reason."""
