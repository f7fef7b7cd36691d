"""Torch modules as people write them: functional calls, reuse, views, tied weights, several inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CASES", "Case"]

Case = tuple[Callable[[], nn.Module], Any, Any]
"""A module, an example batch, a loss."""


def images(channels: int = 3, size: int = 8, batch: int = 4) -> Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


def tokens(length: int = 6, classes: int = 11, batch: int = 4) -> Tensor:
    return torch.randint(classes, (batch, length), generator=torch.Generator().manual_seed(2))


def series(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


class LeNet(nn.Module):
    """Functional calls, and one pool used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 3)
        self.pool = nn.MaxPool2d(2)
        self.fc1, self.fc2 = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(F.pad(x, (1, 1, 1, 1)))))
        return self.fc2(torch.tanh(self.fc1(x.view(-1, 16))))


class Block(nn.Module):
    """A residual block with batch norm and a strided shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.down = nn.Sequential(nn.Conv2d(3, 4, 1, stride=2, bias=False), nn.BatchNorm2d(4))
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.down(x)
        return self.head(F.adaptive_avg_pool2d(self.relu(y), 1).flatten(1))


class Inverted(nn.Module):
    """Channels in groups, ReLU6, hard swish, squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depth = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.squeeze, self.grow = nn.GroupNorm(2, 6), nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.expand(x) * 2)
        x = F.hardswish(self.norm(self.depth(x)))
        gate = torch.sigmoid(self.grow(F.silu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.out((x * gate).mean([-2, -1]))


class Vision(nn.Module):
    """Patches, a class token, positions, an encoder of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.token, self.place = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(series(1, 5, 8))
        layer = nn.TransformerEncoderLayer(
            8, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.norm(self.encoder(x))[:, 0])


class Attention(nn.Module):
    """nanoGPT's: one product for queries, keys and values; attention by hand or in one call."""

    def __init__(self, flash: bool) -> None:
        super().__init__()
        self.c_attn, self.c_proj, self.flash = nn.Linear(8, 24), nn.Linear(8, 8, bias=False), flash
        self.register_buffer("bias", torch.tril(torch.ones(9, 9)).view(1, 1, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.c_attn(x).split(8, dim=2)
        q, k, v = (part.view(b, t, 2, 4).transpose(1, 2) for part in (q, k, v))
        if self.flash:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            att = (q @ k.transpose(-2, -1)) * (1.0 / 4**0.5)
            att = att.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf"))
            y = F.softmax(att, dim=-1) @ v
        return self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c))


class Gpt(nn.Module):
    """nanoGPT: tied weights, positions by an index, the last places alone or all of them."""

    def __init__(self, flash: bool = True) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, 8), nn.Embedding(9, 8)
        self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(8), Attention(flash), nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(approximate="tanh"), nn.Linear(16, 8))
        self.ln_f, self.lm_head = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, idx: Tensor) -> Tensor:
        pos = torch.arange(0, idx.shape[1], dtype=torch.long, device=idx.device)
        x = self.wte(idx) + self.wpe(pos)
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return self.lm_head(self.ln_f(x)).transpose(1, 2)


class Llama(nn.Module):
    """RMS norm by hand, rotary positions by halves, a gated unit."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.norm = nn.Embedding(11, 8), nn.Parameter(torch.ones(8))
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8, bias=False) for _ in range(4))
        self.w1, self.w2, self.w3 = nn.Linear(8, 12, False), nn.Linear(12, 8, False), nn.Linear(8, 12, False)
        self.head = nn.Linear(8, 3)
        angles = torch.arange(6)[:, None] / 10000.0 ** (torch.arange(0, 4, 2) / 4)
        self.register_buffer("cos", torch.cat([angles, angles], -1).cos())
        self.register_buffer("sin", torch.cat([angles, angles], -1).sin())

    def turned(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([-second, first], -1) * self.sin

    def forward(self, idx: Tensor) -> Tensor:
        x = self.emb(idx)
        h = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.norm
        q, k, v = (m(h).unflatten(-1, (2, 4)).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        x = x + self.w2(F.silu(self.w1(x)) * self.w3(x))
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """The last state of a recurrent layer, or all of its outputs."""

    def __init__(self, kind: Any, last: bool = False, **keys: Any) -> None:
        super().__init__()
        self.rnn, self.last = kind(3, 4, **keys), last
        self.out = nn.Linear(4 * (1 + keys.get("bidirectional", False)), 3)

    def forward(self, x: Tensor) -> Tensor:
        y, h = self.rnn(x)
        if self.last:
            return self.out((h[0] if isinstance(h, tuple) else h)[-1])
        return self.out(y if self.rnn.batch_first else y.transpose(0, 1))[:, -1]


class TimeFirst(nn.Module):
    """A recurrent layer with steps before samples."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(3, 4, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x.transpose(0, 1))[0].mean(0))


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1), nn.ELU(), nn.Conv2d(4, 6, 3, 2, 1), nn.Softplus()
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(4, 1, 3, 2, 1, output_padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.up, self.last = nn.Conv2d(6 + 4, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.gelu(self.down1(x))
        b = F.gelu(self.down2(F.max_pool2d(a, 2)))
        b = F.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
        return self.last(F.gelu(self.up(torch.cat([b, a], dim=1))))


class Gated(nn.Module):
    """Two inputs, one of classes; einsum, stack, a sum over a dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.w = nn.Embedding(5, 4), nn.Parameter(series(4, 6, 3) / 3)
        self.fc = nn.Linear(6, 6)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        h = torch.stack([torch.sin(self.fc(image)), image], 1)
        kind = self.kinds(label)
        mixed = torch.einsum("bnd,edc->bnec", h, self.w)
        return torch.einsum("bnec,be->bc", mixed, kind)


class Reused(nn.Module):
    """One layer called twice, a tensor used plainly, powers and divisions."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.scale = nn.Linear(5, 5), nn.Parameter(torch.full((5,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.fc(torch.tanh(self.fc(x)) - 1.5 * x))
        y = y * self.scale + 2 / (1 + y**2) - y / 3
        return (1 - y).clamp(-0.9, 1.1)[:, 1:4] + x.std(1, keepdim=True)


class Shifted(nn.Module):
    """Windows that are rolled, with a mask of regions and relative positions, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj, self.head = nn.Linear(4, 12), nn.Linear(4, 4), nn.Linear(4, 3)
        self.table = nn.Parameter(series(9, 2))
        at = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        index = (at[:, :, None] - at[:, None, :]).permute(1, 2, 0) + 1
        self.register_buffer("index", (index * torch.tensor([3, 1])).sum(-1).flatten())

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        x = torch.roll(x.permute(0, 2, 3, 1), (-1, -1), (1, 2))
        x = x.view(b, 2, 2, 2, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(b * 4, 4, 4)
        q, k, v = self.qkv(x).reshape(b * 4, 4, 3, 2, 2).permute(2, 0, 3, 1, 4)
        att = (q * 2**-0.5) @ k.transpose(-2, -1)
        att = att + self.table[self.index].view(4, 4, 2).permute(2, 0, 1).unsqueeze(0)
        regions = x.new_zeros(4, 4)
        regions[:2, :2], regions[2:, 2:] = 1, 2
        mask = regions.view(2, 2, 2, 2).permute(0, 2, 1, 3).reshape(4, 4)
        mask = mask.unsqueeze(1) - mask.unsqueeze(2)
        mask = mask.masked_fill(mask != 0, -100.0)
        att = att.view(b, 4, 2, 4, 4) + mask.unsqueeze(1).unsqueeze(0)
        att = F.softmax(att.view(-1, 2, 4, 4), -1)
        x = self.proj((att @ v).transpose(1, 2).reshape(b * 4, 4, 4))
        x = x.view(b, 2, 2, 2, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(b, 4, 4, 4)
        return self.head(torch.roll(x, (1, 1), (1, 2)).mean((1, 2)))


class Densely(nn.Module):
    """Batch norm of features, dropout, channels one after the other; in the mode that it is put in."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.bn, self.drop = nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.Dropout(0.3)
        self.fc2 = nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.cat([self.drop(F.mish(self.bn(self.fc1(x)))), x], 1))


def evaluated(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: make().eval()


def of_keys(kind: Any, *given: Any, **keys: Any) -> Callable[[], nn.Module]:
    return lambda: kind(*given, **keys)


CROSS, SQUARES = nn.CrossEntropyLoss(), nn.MSELoss()
CASES: Mapping[str, Case] = {
    "lenet": (LeNet, images(1), CROSS),
    "a sequence": (lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)), series(4, 5), CROSS),
    "residual block in training": (Block, images(), CROSS),
    "residual block evaluated": (evaluated(Block), images(), CROSS),
    "inverted residual": (Inverted, images(), CROSS),
    "vision transformer": (Vision, images(), CROSS),
    "gpt": (Gpt, tokens(), CROSS),
    "gpt by hand": (of_keys(Gpt, False), tokens(), CROSS),
    "llama": (Llama, tokens(), CROSS),
    "lstm": (of_keys(Recurrent, nn.LSTM, batch_first=True), series(4, 5, 3), CROSS),
    "last state of an lstm": (of_keys(Recurrent, nn.LSTM, True, batch_first=True), series(4, 5, 3), CROSS),
    "gru of layers and directions": (
        of_keys(Recurrent, nn.GRU, num_layers=2, bidirectional=True, batch_first=True),
        series(4, 5, 3),
        CROSS,
    ),
    "rnn": (
        of_keys(Recurrent, nn.RNN, batch_first=True, nonlinearity="relu", bias=False),
        series(4, 5, 3),
        CROSS,
    ),
    "steps before samples": (TimeFirst, series(4, 5, 3), CROSS),
    "autoencoder": (Autoencoder, images(1), SQUARES),
    "u-net": (UNet, images(), CROSS),
    "two inputs": (Gated, (series(4, 6), torch.tensor([0, 3, 4, 1])), CROSS),
    "two inputs by name": (Gated, {"label": torch.tensor([0, 3, 4, 1]), "image": series(4, 6)}, CROSS),
    "one layer twice": (Reused, series(4, 5), nn.HuberLoss(delta=0.5)),
    "shifted windows": (Shifted, images(4, 4), CROSS),
    "dropout and batch norm evaluated": (evaluated(Densely), series(4, 5), CROSS),
}
