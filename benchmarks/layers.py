"""Networks with convolutions and attention: derivatives of Torch modules as multiples of one torch gradient.

    python benchmarks/layers.py [--threads 2] [--rounds 11] [--keep-memory] [--peers]

LeNet (32 × 32, batch 100), VGG-11' a quarter wide (batch 32), ResNet-18 (32 × 32, batch 16, evaluated and in
training), a causal transformer (4 layers of 128, 64 tokens, batch 8) and an LSTM (128 units, 50 steps, batch
32) in float32. Beside the generated gradient, products after ``linearize``, and summaries of orders 2 and 3
with a group for each layer stand PyTorch's gradient with its own modules, which is the base, and its double
backward with the graph kept, where it has one. Memory that the system gives anew takes more or less time from
call to call; with ``--keep-memory`` the C library (glibc) keeps what is freed, for PyTorch as for sifrc. With
``--peers`` come the products of curvlinops and BackPACK on the same PyTorch modules, where these packages are
installed, and what they refuse (``layer_peers.py``).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=11)
parser.add_argument("--peers", action="store_true", help="curvlinops and BackPACK too")
parser.add_argument("--keep-memory", action="store_true", help="let the C library keep what is freed")
parser.add_argument("--networks", default="", help="parts of titles, by commas; all by default")
arguments = parser.parse_args()
KEPT = {f"MALLOC_{name}_": str(1 << 33) for name in ("TRIM_THRESHOLD", "MMAP_THRESHOLD")}
if arguments.keep_memory and not KEPT.keys() <= os.environ.keys():
    # The library reads them when it is loaded.
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEPT})
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(arguments.threads)

import torch  # noqa: E402
from layer_networks import Transformer  # noqa: E402
from layer_peers import peer_products  # noqa: E402
from memory import peak_numbers  # noqa: E402
from timing import interleaved, print_table  # noqa: E402
from torch import nn  # noqa: E402

import sifrc  # noqa: E402
from sifrc.spec.partition import tensor_names  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "summary")


def convolutional(
    plan: tuple[tuple[int, bool], ...], kernel: int, padding: int, dense: tuple[int, ...]
) -> nn.Module:
    """Convolutions with an activation and some maxima, then dense layers."""
    layers: list[nn.Module] = []
    before, size, activation = 3, 32, nn.Tanh if kernel == 5 else nn.ELU
    for channels, pooled in plan:
        layers += [nn.Conv2d(before, channels, kernel, padding=padding), activation()]
        before, size = channels, size + 2 * padding - kernel + 1
        if pooled:
            layers.append(nn.MaxPool2d(2))
            size //= 2
    layers.append(nn.Flatten())
    entries = before * size * size
    for units in dense:
        layers += [nn.Linear(entries, units), activation()]
        entries = units
    return nn.Sequential(*layers[:-1])


class Residual(nn.Module):
    """A block of ResNet-18."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.short = nn.Sequential()
        if stride != 1:
            convolution = nn.Conv2d(before, channels, 1, stride, bias=False)
            self.short = nn.Sequential(convolution, nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.short(x))


def resnet() -> nn.Module:
    """ResNet-18 for small images."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    before = 64
    for channels in (64, 128, 256, 512):
        layers += [Residual(before, channels, 1 + (channels != before)), Residual(channels, channels, 1)]
        before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class LanguageModel(nn.Module):
    """The network of ``examples/lstm_language_model.yaml`` with PyTorch's own layers."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.vectors, self.lstm = nn.Embedding(65, 128), nn.LSTM(128, 128, batch_first=True)
        self.logits = nn.Linear(128, 65)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the tokens."""
        return self.logits(self.lstm(self.vectors(tokens))[0])


def double_backward(network: nn.Module, x: torch.Tensor, t: torch.Tensor) -> Callable[[], object] | None:
    """A Hessian–vector product on a kept graph; None where PyTorch has none."""
    own = list(network.parameters())
    loss = nn.functional.cross_entropy(network(x).movedim(-1, 1), t)
    slopes = torch.autograd.grad(loss, own, create_graph=True)
    vector = [torch.randn_like(p) for p in own]

    def product() -> object:
        return torch.autograd.grad(slopes, own, vector, retain_graph=True, allow_unused=True)

    try:
        product()
    except RuntimeError:
        return None
    return product


def rows(
    title: str, file: str, network: nn.Module, x: torch.Tensor, t: torch.Tensor, mode: str = "training"
) -> None:
    """Measure one network."""
    if not any(part in title for part in arguments.networks.split(",")):
        return
    network.train(mode == "training")
    spec = sifrc.load_spec(EXAMPLES / file)
    owners = dict.fromkeys(name.rpartition(".")[0] for name in tensor_names(spec.layers))
    groups = {name.replace(".", "_"): [f"{name}.*"] for name in owners}
    module = sifrc.compile(
        spec, backend="torch", method="none", operators=OPERATORS, partition=groups, mode=mode
    )
    params = module.initialize()
    vector = {name: torch.randn(shape) for name, shape in module.SHAPES.items()}
    hessian = module.linearize(params, x, t, "hessian")
    gauss_newton = module.linearize(params, x, t, "gauss_newton")

    def gradient() -> None:
        network.zero_grad()
        nn.functional.cross_entropy(network(x).movedim(-1, 1), t).backward()

    candidates: dict[str, Callable[[], object]] = {
        "torch gradient": gradient,
        "gradient": lambda: module.gradient(params, x, t),
        "Hv": lambda: hessian(vector),
        "GGNv": lambda: gauss_newton(vector),
    }
    twice = double_backward(network, x, t)
    if twice is not None:
        candidates["torch double backward"] = twice
    refused: dict[str, str] = {}
    if arguments.peers:
        own = [torch.randn_like(p) for p in network.parameters()]
        products, refused = peer_products(network, x, t, own)
        candidates |= products
    found = interleaved(candidates, "torch gradient", arguments.rounds)
    # Apart: after arrays of so many tangents, memory is slow for those that come next.
    summaries: dict[str, Callable[[], object]] = {
        "torch gradient": gradient,
        "summary, order 2": lambda: module.summary(params, x, t, vector, order=2),
        "summary, order 3": lambda: module.summary(params, x, t, vector, order=3),
    }
    found |= {
        name: ratio
        for name, ratio in interleaved(summaries, "torch gradient", arguments.rounds).items()
        if name not in found
    }
    table = [
        (
            name,
            f"{r.seconds * 1e3:.1f}",
            f"{r.ratio:.2f}",
            f"{r.spread[0]:.2f}–{r.spread[1]:.2f}",
            f"{r.cpu_ratio:.2f}",
        )
        for name, r in found.items()
    ]
    heading = f"{title}, {len(owners)} groups, {arguments.threads} threads"
    print_table(heading, ("", "ms", "ratio", "spread", "CPU"), table)
    least = peak_numbers(gradient)
    peaks = {name: peak_numbers(candidates[name]) / least for name in ("gradient", "Hv", "GGNv")}
    print("peak of tensors over a torch gradient's:", *(f"{name} {p:.2f}" for name, p in peaks.items()))
    for name, words in refused.items():
        print(f"{name}: {words}")


def main() -> None:
    """All networks."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    lenet = convolutional(((6, True), (16, True)), 5, 0, (120, 84, 10))
    rows("LeNet", "cifar_lenet.yaml", lenet, torch.randn(100, 3, 32, 32), torch.randint(10, (100,)))
    widths, pooled = (16, 32, 64, 64, 128, 128, 128, 128), (1, 1, 0, 1, 0, 1, 0, 1)
    plan = tuple((width, bool(maxima)) for width, maxima in zip(widths, pooled, strict=True))
    vgg = convolutional(plan, 3, 1, (10,))
    rows("VGG-11' / 4", "cifar_vgg11_narrow.yaml", vgg, torch.randn(32, 3, 32, 32), torch.randint(10, (32,)))
    images = torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
    for mode in ("evaluation", "training"):
        rows(f"ResNet-18, {mode}", "cifar_resnet18.yaml", resnet(), *images, mode)
    tokens = torch.randint(65, (2, 8, 64))
    rows("Transformer", "transformer.yaml", Transformer(), tokens[0], tokens[1])
    tokens = torch.randint(65, (2, 32, 50))
    rows("LSTM", "lstm_language_model.yaml", LanguageModel(), tokens[0], tokens[1])


if __name__ == "__main__":
    main()
