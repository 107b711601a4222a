"""Training of the nucleus network: honest parts, crops as in use, targets that are true, and it learns."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from ctc_training.nuclei.augment import CROP_PX, draw_crop
from ctc_training.nuclei.build import read_sources, training_part, validation_part
from ctc_training.nuclei.images import BASE_DIAMETER_PX, LabelledImage, rescaled, simulate_images
from ctc_training.nuclei.targets import targets_of
from ctc_training.nuclei.train import Crops, NucleusSchedule, train_nuclei
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.errors import ModelError


def an_image(seed: int = 0, name: str = "painted", radius_px: int = 9) -> LabelledImage:
    """Paint bright discs, some of which touch, on a noisy background."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((180, 200), np.int32)
    for label in range(1, 25):
        y, x = (int(rng.integers(12, side - 12)) for side in labels.shape)
        disc = cv2.circle(np.zeros(labels.shape, np.uint8), (x, y), radius_px, 1, -1) > 0
        labels[disc & (labels == 0)] = label
    image = cv2.GaussianBlur((labels > 0) * np.float32(100), (0, 0), 1) + rng.normal(20, 3, labels.shape)
    return LabelledImage(name, name, image.astype(np.float32), labels, np.zeros(labels.shape, bool))


@pytest.fixture
def real(shared_data: Path) -> tuple[list[LabelledImage], list[LabelledImage]]:
    return read_sources(shared_data)


def test_no_look_alike_is_in_training_and_validation_both(
    real: tuple[list[LabelledImage], list[LabelledImage]],
) -> None:
    trained, trained_cytospins = training_part(*real)
    tested, tested_cytospins = validation_part(*real)
    assert not {item.source for item in trained} & {item.source for item in tested}
    assert not {item.name for item in trained_cytospins} & {item.name for item in tested_cytospins}
    assert (len(tested), len(tested_cytospins)) == (133, 4)
    assert len(trained) + len(tested) == len(real[0])


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no labelled images"):
        read_sources(tmp_path)


def test_images_are_brought_to_one_size_of_nucleus() -> None:
    item = rescaled(an_image(radius_px=5))
    assert item.diameter_px == pytest.approx(BASE_DIAMETER_PX, rel=0.1)
    assert item.image.shape == item.labels.shape == item.ignore.shape


@given(st.integers(0, 10_000))
def test_crops_are_finite_in_noise_units_with_known_and_unknown_parts(seed: int) -> None:
    signal, labels, ignore = draw_crop(rescaled(an_image()), np.random.default_rng(seed))
    assert signal.shape == labels.shape == ignore.shape == (CROP_PX, CROP_PX)
    assert signal.dtype == np.float32
    assert np.isfinite(signal).all()
    assert labels.min() == 0


def test_the_same_seed_gives_the_same_crops() -> None:
    rows = [list(islice(Crops([[an_image()]], [1.0], seed=3), 4)) for _ in range(2)]
    for first, second in zip(*rows, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


@given(st.integers(0, 1000))
def test_targets_are_what_the_labels_say(seed: int) -> None:
    labels = an_image(seed).labels
    maps, weight = targets_of(labels, np.zeros(labels.shape, bool))
    assert np.array_equal(maps[0] > 0, labels > 0)
    assert maps[1].min() == 0
    assert maps[1].max() == 1
    for label in np.unique(labels[labels > 0]):
        inside = labels == label
        assert maps[1][inside].max() >= 0.5
        rows, columns = np.nonzero(inside)
        # All pixels of a nucleus point at one place, within the box around it.
        aims = np.stack([rows + 8 * maps[2][inside], columns + 8 * maps[3][inside]])
        assert np.ptp(aims, axis=1).max() < 1e-3
        assert rows.min() <= aims[0, 0] <= rows.max()
        assert columns.min() <= aims[1, 0] <= columns.max()
    assert weight.min() >= 1


def test_what_nobody_labelled_counts_for_nothing() -> None:
    labels = np.zeros((30, 30), np.int32)
    labels[5:12, 5:12] = 1
    ignore = np.zeros(labels.shape, bool)
    ignore[:, 10:] = True
    _, weight = targets_of(labels, ignore)
    assert not weight[ignore & (labels == 0)].any()
    assert (weight[labels > 0] > 0).all()


def test_gaps_between_near_nuclei_weigh_more() -> None:
    labels = np.zeros((30, 30), np.int32)
    labels[5:20, 5:12], labels[5:20, 13:20] = 1, 2
    _, weight = targets_of(labels, np.zeros(labels.shape, bool))
    assert weight[12, 12] > weight[25, 25]


def test_simulated_blood_comes_with_its_nuclei() -> None:
    (item,) = simulate_images([1000], (256, 256))
    inside = item.image[item.labels > 0]
    assert len(np.unique(item.labels)) > 5
    assert np.median(inside) > 2 * np.median(item.image[item.labels == 0])


def test_it_learns(tmp_path: Path) -> None:
    losses: list[float] = []
    images = [an_image(seed, str(seed)) for seed in range(3)]
    schedule = NucleusSchedule(steps=300, batch=2, shares=(1.0,), workers=0, threads=1)
    train_nuclei(
        [images],
        schedule,
        architecture={"channels": [4, 8], "down": [1, 1], "up": [1]},
        progress=lambda step, loss, network: losses.append(loss),
    )
    assert len(losses) == 3
    assert losses[-1] < 0.8 * losses[0]
