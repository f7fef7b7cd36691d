"""How many classification networks of torchvision can be imported, and which operators the others have.

    python benchmarks/importing.py [NAME ...]

Each is made without weights, evaluated, traced for small images, and its spec built, within a limit of time.
``--check`` also compares outputs of the generated module with those of the network.
"""

from __future__ import annotations

import argparse
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

import sifrc

_SIZES = {"inception_v3": 96, "maxvit_t": 224, "vit_h_14": 56}
"""Of images; 64 for the others."""


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


def made(zoo: Any, name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """A network and a batch of images."""
    size = _SIZES.get(name, 64)
    keys: dict[str, Any] = {"image_size": size} if name.startswith("vit") else {}
    if name in ("inception_v3", "googlenet"):
        keys["init_weights"] = False
    return zoo.get_model(name, weights=None, **keys).eval(), torch.randn(2, 3, size, size)


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Stop what takes longer."""

    def late(*given: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def imported(zoo: Any, names: list[str], check: bool, limit: int) -> Iterator[tuple[str, str, int, float]]:
    """Name, what is wrong, number of layers, and seconds."""
    for name in names:
        module, images = made(zoo, name)
        begun, problem, layers = time.perf_counter(), "", 0
        try:
            with limited(limit):
                layers = len(sifrc.from_torch(module, images, check=check, cache=False).layers)
        except sifrc.SifrcError as error:
            problem = error.message
        except TimeoutError as error:
            problem = str(error)
        yield name, problem, layers, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="networks; all classification networks by default")
    parser.add_argument("--check", action="store_true", help="compare outputs")
    parser.add_argument("--limit", type=int, default=600, help="seconds for each")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    zoo = torchvision_models()
    names = given.names or zoo.list_models(module=zoo)
    done = 0
    for name, problem, layers, seconds in imported(zoo, names, given.check, given.limit):
        done += not problem
        print(f"{name:22} {problem or f'{layers} layers'}  ({seconds:.0f} s)", flush=True)
    print(f"{done} of {len(names)} imported ({done / len(names):.0%})")


if __name__ == "__main__":
    main()
