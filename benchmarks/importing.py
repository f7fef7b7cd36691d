"""How many classification networks of torchvision can be imported, and which operators the others have.

    python benchmarks/importing.py [NAME ...]

Each is made without weights, evaluated, traced for images of its size, and its spec built. ``--check`` also
compares outputs of the generated module with those of the network.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch

import sifrc

_OPTIONS: dict[str, dict[str, Any]] = {
    "inception_v3": {"aux_logits": False, "init_weights": False},
    "googlenet": {"aux_logits": False, "init_weights": False},
}


def torchvision_models() -> Any:
    """torchvision, also where its own operators were built for another torch: none is needed here."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        try:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            break
    import torchvision

    return torchvision.models


def imported(zoo: Any, names: list[str], check: bool) -> Iterator[tuple[str, str, int, float]]:
    """Name, what is wrong, number of layers, and seconds."""
    for name in names:
        size = 299 if name.startswith("inception") else 224
        begun = time.perf_counter()
        module = zoo.get_model(name, weights=None, **_OPTIONS.get(name, {})).eval()
        try:
            spec = sifrc.from_torch(module, torch.randn(2, 3, size, size), check=check)
        except sifrc.SifrcError as error:
            yield name, error.message, 0, time.perf_counter() - begun
        else:
            yield name, "", len(spec.layers), time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="networks; all classification networks by default")
    parser.add_argument("--check", action="store_true", help="compare outputs")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    zoo = torchvision_models()
    names = given.names or zoo.list_models(module=zoo)
    done = 0
    for name, problem, layers, seconds in imported(zoo, names, given.check):
        done += not problem
        print(f"{name:22} {problem or f'{layers} layers'}  ({seconds:.0f} s)", flush=True)
    print(f"{done} of {len(names)} imported ({done / len(names):.0%})")


if __name__ == "__main__":
    main()
