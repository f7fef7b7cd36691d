"""``sifrc analyze``: the curvature of a network in a table, pictures and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sifrc.linear.analysis import Analysis

__all__ = ["analyze"]

_SOURCE = "A spec, or MODULE:FACTORY that returns (module, (inputs, targets), loss)."


def analyze(
    source: Annotated[str, typer.Argument(metavar="SPEC|MODULE:FACTORY", help=_SOURCE, show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder for analysis.json and the pictures."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="Parameters: a checkpoint of sifrc train, its folder, or a state_dict saved by torch. "
            "Default: initial ones, or those of the module.",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="NAME|PATH", help="Data set of a spec. Default: its own.")
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="Of the data set, from its beginning.")
    ] = 256,
    top: Annotated[int, typer.Option("--top", min=1, help="Eigenvalues at each end.")] = 5,
    probes: Annotated[int, typer.Option("--probes", min=2, help="Random vectors of estimates.")] = 10,
    steps: Annotated[int, typer.Option("--steps", min=2, help="Of Lanczos for the density.")] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in the place of tables.")] = False,
) -> None:
    """Show spectrum, traces and interactions of the Hessian."""
    from sifrc.api.operating import operators
    from sifrc.cli.files import write_file
    from sifrc.linear.analysis import analyze as analyzed

    model, loss, batch, params = _subject(source, checkpoint, data, samples)
    found = analyzed(operators(model, loss, batch, params=params), top=top, probes=probes, steps=steps)
    text = json.dumps(found.to_dict(), indent=2) + "\n"
    if output is not None:
        from sifrc.linear.pictures import PICTURES, draw_analysis

        write_file(output / "analysis.json", text)
        draw_analysis(found, output)
    if as_json:
        typer.echo(text, nl=False)
        return
    _show(found)
    if output is not None:
        typer.echo(f"wrote {', '.join(str(output / name) for name in ('analysis.json', *PICTURES))}")


def _show(found: Analysis) -> None:
    """Two tables."""
    from sifrc.cli.output import show_table

    typer.echo(
        f"{found.name}: {found.parameters} parameters, {found.samples} samples, "
        f"objective {found.objective:.6g}, gradient {found.gradient:.4g}"
    )
    rows = [
        (str(n + 1), *(f"{values[n]:.5g}" for values in (found.largest, found.smallest, found.gauss_newton)))
        for n in range(len(found.largest))
    ]
    show_table(("", "Hessian, largest", "smallest", "Gauss–Newton, largest"), rows)

    def shown(estimate: Any) -> str:
        return f"{estimate.value:.4g} ± {estimate.error:.1g}"

    modules = [
        (
            module.name,
            str(module.parameters),
            f"{module.gradient:.3g}",
            shown(module.hessian),
            shown(module.gauss_newton),
            f"{module.largest:.4g}",
        )
        for module in found.modules
    ]
    headers = ("module", "parameters", "gradient", "trace of H", "trace of G", "largest eigenvalue")
    show_table(headers, modules)


def _subject(
    source: str, checkpoint: Path | None, data: str | None, samples: int
) -> tuple[Any, Any, Any, Any]:
    """Model, loss, batch, and parameters where the model has none."""
    from sifrc.extras import optional

    optional("torch", "sifrc analyze")
    if ":" in source and not Path(source).exists():
        return _of_factory(source, checkpoint)
    import torch

    from sifrc.api.runs import load_data
    from sifrc.errors import SpecError

    spec, dataset = load_data(source, data)
    dtype = getattr(torch, spec.dtype)
    inputs = torch.as_tensor(dataset.train_inputs[:samples]).to(dtype).reshape(-1, *spec.input.shape)
    targets = torch.as_tensor(dataset.train_targets[:samples])
    if spec.loss.targets == "vectors":
        targets = targets.to(dtype)
    if len(inputs) == 0:
        raise SpecError("the data set has no samples")
    params = None if checkpoint is None else _parameters(checkpoint, dtype)
    return spec, None, (inputs, targets), params


def _of_factory(source: str, checkpoint: Path | None) -> tuple[Any, Any, Any, Any]:
    from sifrc.cli.importing import made_by
    from sifrc.errors import ModuleImportError

    found = made_by(source)
    if not isinstance(found, tuple) or len(found) < 2 or not isinstance(found[1], tuple | list):
        raise ModuleImportError(
            f"{source} returns no batch to analyze", hint="return (module, (inputs, targets), loss)"
        )
    module, batch, loss = (*found, "cross_entropy")[:3]
    if checkpoint is not None:
        import torch

        module.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu"))
    return module, loss, tuple(batch), None


def _parameters(path: Path, dtype: Any) -> dict[str, Any]:
    """The parameters in a checkpoint of a run, or in a state_dict."""
    import torch

    from sifrc.training.checkpoint import saved_parameters

    if path.suffix in (".pt", ".pth"):
        return dict(torch.load(path, weights_only=True, map_location="cpu"))
    return {name: torch.as_tensor(value).to(dtype) for name, value in saved_parameters(path).items()}
