"""The network that finds nuclei: stain in, foreground, depth and the way to the centre out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

UM_PER_PX = 0.5
"""Scale the network was trained about; nuclei from half to twice the typical size are in its range."""

STEP_PX = 16
"""Sides of what the network sees are multiples of this."""

OFFSET_UNIT_PX = 8.0
NOISE_UNIT = 3.0


def squash(signal: np.ndarray) -> np.ndarray:
    """Squash signal in noise units by arcsinh: linear about the noise, logarithmic far above it."""
    return np.arcsinh(signal / np.float32(NOISE_UNIT), dtype=np.float32)


class NucleusNetwork(nn.Module):
    """A U-Net (Ronneberger 2015, doi 10.1007/978-3-319-24574-4_28) that works at half the resolution it reads.

    Its four maps: foreground (logit), depth (distance to the outline as a share of the nucleus's
    own largest), and the step to the nucleus's centre (rows, columns; in `OFFSET_UNIT_PX`).

    Parameters
    ----------
    channels : sequence of int
        Feature maps at 1/2, 1/4, 1/8 ... of the resolution.
    down, up : sequence of int
        Convolutions at each level on the way down, and on the way up.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64, 96),
        down: Sequence[int] = (1, 2, 3, 3),
        up: Sequence[int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        self.stem = _convolution(1, channels[0], kernel=5, stride=2)
        self.down = nn.ModuleList(_level(width, count) for width, count in zip(channels, down, strict=True))
        pairs = list(pairwise(channels))
        self.shrink = nn.ModuleList(_convolution(fine, coarse, stride=2) for fine, coarse in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairs)
        self.up = nn.ModuleList(_level(width, count) for width, count in zip(channels[:-1], up, strict=True))
        self.head = nn.Conv2d(channels[0], 4 * 4, 3, padding=1)

    def forward(self, stain: Tensor) -> Tensor:
        """Return maps (n, 4, h, w) of squashed stain (n, 1, h, w), sides multiples of `STEP_PX`."""
        maps, fine = self.stem(stain), []
        for level, shrink in zip(self.down, self.shrink, strict=False):
            maps = level(maps)
            fine.append(maps)
            maps = shrink(maps)
        maps = self.down[-1](maps)
        for level, grow, skipped in zip(reversed(self.up), reversed(self.grow), reversed(fine), strict=True):
            maps = level(skipped + nn.functional.interpolate(grow(maps), scale_factor=2.0, mode="nearest"))
        return nn.functional.pixel_shuffle(self.head(maps), 2)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(maps + self.body(maps))


def _level(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(width) for _ in range(count)))


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def fuse(network: NucleusNetwork) -> NucleusNetwork:
    """Fold batch normalisation into the convolution before it, in place, for inference only."""
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for index in range(len(module) - 1):
                convolution, norm = module[index], module[index + 1]
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[index] = nn.utils.fuse_conv_bn_eval(convolution, norm)
                    module[index + 1] = nn.Identity()
    return network
