"""Variation that a laboratory's next slide will have, made from crops in signal-to-noise units."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn import functional

EPITHELIAL, MESENCHYMAL, LEUKOCYTE = 1, 2, 3
"""Planes of the markers, any of which a panel may lack or a stain may fail."""

LARGEST_SHIFT_PX = 3.0
# CTCs of 7.5 to 12.4 um stand beside leukocytes of 9.4 (PMC7782084): sizes must overlap here at least as much.
SIZE_RANGE = (0.7, 1.4)
GAIN_RANGE = (0.7, 1.4)
LARGEST_BLEED = 0.12
LARGEST_BLUR_PX = 1.5
LARGEST_NOISE = 0.75
# Share of crops that lose a marker; a CTC only where another still shows what it is.
DROPOUT = {EPITHELIAL: 0.04, MESENCHYMAL: 0.25, LEUKOCYTE: 0.04}
SHOWS_SNR = 2.0


@dataclass(frozen=True)
class Sample:
    """A batch of training crops.

    Attributes
    ----------
    roles : Tensor of float32, shape (n, 4, 48, 48)
        Signal-to-noise.
    masks : Tensor of float32, shape (n, 2, 48, 48)
    present : Tensor of float32, shape (n, 4)
    snr : Tensor of float32, shape (n, 3)
        True signal-to-noise of the markers, NaN where unknown.
    target : Tensor of int64, shape (n,)
    """

    roles: Tensor
    masks: Tensor
    present: Tensor
    snr: Tensor
    target: Tensor


def augment(sample: Sample, generator: Generator) -> Sample:
    """Vary place, size, stain, focus, noise and panel of a batch at random.

    Parameters
    ----------
    sample : Sample
    generator : torch.Generator
        Of the CPU; the same state gives the same batch.

    Returns
    -------
    Sample
        Marker truth follows the changes of gain, noise and panel.
    """
    for change in (turn, deform, restain, bleed, blur, add_noise, drop_marker):
        sample = change(sample, generator)
    return sample


def turn(sample: Sample, generator: Generator) -> Sample:
    """Flip and turn by quarters, exactly; one way for the whole batch."""
    flip, quarters = _integer(2, generator), _integer(4, generator)

    def apply(maps: Tensor) -> Tensor:
        return torch.rot90(maps.flip(3) if flip else maps, quarters, (2, 3))

    return replace(sample, roles=apply(sample.roles), masks=apply(sample.masks))


def deform(sample: Sample, generator: Generator) -> Sample:
    """Turn by any angle, shift, and change the size, so that size can't stand for the class.

    Done to every second batch: resampling smooths the noise, which crops in use don't have.
    """
    if _integer(2, generator):
        return sample
    count, side = len(sample.target), sample.roles.shape[-1]
    angle = _uniform(count, -math.pi, math.pi, generator)
    inverse_size = torch.exp(-_uniform(count, math.log(SIZE_RANGE[0]), math.log(SIZE_RANGE[1]), generator))
    reach = 2 * LARGEST_SHIFT_PX / side
    shift = torch.stack([_uniform(count, -reach, reach, generator) for _ in range(2)], dim=1)
    cosine, sine = angle.cos() * inverse_size, angle.sin() * inverse_size
    matrix = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], dim=1).reshape(count, 2, 3)
    both = torch.cat([sample.roles, sample.masks], dim=1)
    grid = functional.affine_grid(matrix, list(both.shape), align_corners=False)
    moved = functional.grid_sample(both, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return replace(sample, roles=moved[:, :4].contiguous(), masks=moved[:, 4:].contiguous())


def restain(sample: Sample, generator: Generator) -> Sample:
    """Change each stain's strength, and its truth with it."""
    low, high = (math.log(edge) for edge in GAIN_RANGE)
    gain = torch.exp(_uniform((len(sample.target), 4), low, high, generator))
    return replace(sample, roles=sample.roles * gain[:, :, None, None], snr=sample.snr * gain[:, 1:])


def bleed(sample: Sample, generator: Generator) -> Sample:
    """Let neighbouring channels shine into each other, in every second batch."""
    if _integer(2, generator):
        return sample
    up, down = (_uniform((len(sample.target), 3, 1, 1), 0, LARGEST_BLEED, generator) for _ in range(2))
    roles = sample.roles.clone()
    roles[:, 1:] += up * sample.roles[:, :-1]
    roles[:, :-1] += down * sample.roles[:, 1:]
    return replace(sample, roles=roles * sample.present[:, :, None, None])


def blur(sample: Sample, generator: Generator) -> Sample:
    """Defocus every third batch."""
    if _integer(3, generator):
        return sample
    sigma = float(_uniform(1, 0.3, LARGEST_BLUR_PX, generator))
    place = torch.arange(sample.roles.shape[-1], dtype=torch.float32)
    matrix = torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    # As products of matrices the two passes take a tenth of a depthwise convolution's time.
    return replace(sample, roles=matrix @ (sample.roles @ matrix))


def add_noise(sample: Sample, generator: Generator) -> Sample:
    """Add camera noise and express the signal in the new, larger unit, in every second batch."""
    if _integer(2, generator):
        return sample
    amount = _uniform((len(sample.target), 1, 1, 1), 0, LARGEST_NOISE, generator)
    unit = torch.sqrt(1 + amount**2)
    noise = torch.randn(sample.roles.shape, generator=generator) * amount * sample.present[:, :, None, None]
    return replace(sample, roles=(sample.roles + noise) / unit, snr=sample.snr / unit[:, :, 0, 0])


def drop_marker(sample: Sample, generator: Generator) -> Sample:
    """Take one marker out of the panel of some crops whose class shows without it."""
    share = _uniform(len(sample.target), 0, 1, generator)
    roles, present, snr = sample.roles.clone(), sample.present.clone(), sample.snr.clone()
    shows = sample.snr >= SHOWS_SNR
    # Without CD45 only CK tells a CTC from a leukocyte, without CK only vimentin beside a missing CD45 does.
    other = {EPITHELIAL: MESENCHYMAL, MESENCHYMAL: EPITHELIAL, LEUKOCYTE: EPITHELIAL}
    from_share = 0.0
    for plane, part in DROPOUT.items():
        clear = (sample.target != 0) | (shows[:, other[plane] - 1] & (sample.present[:, other[plane]] > 0))
        dropped = clear & (share >= from_share) & (share < from_share + part)
        roles[dropped, plane], present[dropped, plane], snr[dropped, plane - 1] = 0, 0, torch.nan
        from_share += part
    return replace(sample, roles=roles, present=present, snr=snr)


def _uniform(shape: int | tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _integer(below: int, generator: Generator) -> int:
    return int(torch.randint(below, (1,), generator=generator))
