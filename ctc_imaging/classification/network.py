"""The network: crops of cells in, class and marker positivity out, small enough for one processor core."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ctc_imaging.classification.classes import CLASSES

# Roles with a positivity output, as indices of crops.ROLES: epithelial, mesenchymal, leukocyte.
POSITIVITY_PLANES = (1, 2, 3)
CUES = 4 * 4 + 2 + 4


def squash(roles: np.ndarray) -> np.ndarray:
    """Squash signal-to-noise by arcsinh: linear about the noise, logarithmic far above it.

    NumPy's is twenty times as fast as torch's on one core, which is as long as the network itself.
    """
    return np.arcsinh(roles, dtype=np.float32)


class CellNetwork(nn.Module):
    """Strided convolutions over the crop, beside absolute intensities of the cell's own area.

    The convolutions see texture, shape and neighbours; the cues carry what a reader would measure:
    each marker's mean signal in the nucleus, the cytoplasm and the surroundings, and its peak.

    Parameters
    ----------
    width : int
        Feature maps of the first layer; the later ones have twice and four times as many.
    hidden : int
        Units of the layer before the outputs.
    """

    def __init__(self, width: int = 16, hidden: int = 128) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _convolution(6, width, stride=2),
            _convolution(width, 2 * width, stride=2),
            _Separable(2 * width),
            _convolution(2 * width, 4 * width, stride=2),
            _Separable(4 * width),
            _Separable(4 * width),
        )
        self.cue_norm = nn.BatchNorm1d(CUES)
        self.trunk = nn.Sequential(nn.Linear(2 * 4 * width + CUES, hidden), nn.ReLU(inplace=True), nn.Dropout(0.1))
        self.classes = nn.Linear(hidden, len(CLASSES))
        self.positivity = nn.Linear(hidden, len(POSITIVITY_PLANES))

    def forward(self, planes: Tensor, present: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (n, 3) and positivity logits (n, 3).

        Parameters
        ----------
        planes : Tensor of float32, shape (n, 4, 48, 48)
            Squashed signal-to-noise of the four roles.
        present : Tensor of float32, shape (n, 4)
            1 where the panel has a marker of that role.
        masks : Tensor of float32, shape (n, 2, 48, 48)
            Own cell and own nucleus.
        """
        image = torch.cat([planes, masks], dim=1)
        maps = self.features(image.contiguous(memory_format=torch.channels_last))
        own = nn.functional.adaptive_avg_pool2d(masks[:, :1], maps.shape[-2:])
        cues = self.cue_norm(_cues(planes, present, masks))
        hidden = self.trunk(torch.cat([maps.mean((2, 3)), _masked_mean(maps, own), cues], dim=1))
        return self.classes(hidden), self.positivity(hidden)


def fuse(network: CellNetwork) -> CellNetwork:
    """Fold batch normalisation into the convolutions before it, in place, for inference only."""
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for index in range(len(module) - 1):
                convolution, norm = module[index], module[index + 1]
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[index] = nn.utils.fuse_conv_bn_eval(convolution, norm)
                    module[index + 1] = nn.Identity()
    return network


class _Separable(nn.Module):
    """A residual depthwise-separable block (MobileNet, Howard 2017, arXiv 1704.04861)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu_(maps + self.body(maps))


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _cues(planes: Tensor, present: Tensor, masks: Tensor) -> Tensor:
    """Absolute signal of nucleus, cytoplasm and surroundings, peak signal, areas, markers present."""
    cell, nucleus = masks[:, :1], masks[:, 1:]
    areas = torch.cat([nucleus, (cell - nucleus).clamp(min=0), 1 - torch.maximum(cell, nucleus)], dim=1).flatten(2)
    means = areas @ planes.flatten(2).transpose(1, 2) / areas.sum(2, keepdim=True).clamp(min=1e-3)
    smooth = nn.functional.avg_pool2d(planes * cell, 4)
    sizes = torch.log1p(masks.sum((2, 3)))
    return torch.cat([means.flatten(1), smooth.amax((2, 3)), sizes, present], dim=1)


def _masked_mean(maps: Tensor, mask: Tensor) -> Tensor:
    """Mean of maps (n, c, h, w) over a mask (n, 1, h, w), zero where the mask is empty."""
    return (maps * mask).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1e-3)
