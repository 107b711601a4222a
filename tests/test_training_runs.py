"""How a training goes: settings are checked, a killed one ends as if it never was, and the best epoch is kept."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ctc_training.checkpoint import Epoch, checkpoint_of, read_checkpoint
from ctc_training.curves import write_curves
from ctc_training.dataset import CropSet
from ctc_training.learner import kept_epoch, loss_of
from ctc_training.sampling import EFFECTIVE, class_shares, draw_of, mixture, sampling_weights
from ctc_training.schedule import FINE_TUNING, Schedule, default_architecture, load_schedule
from ctc_training.start import write_seen
from ctc_training.train import learn
from hypothesis import given
from hypothesis import strategies as st

import ctc_imaging
from ctc_imaging.classification.network import CellNetwork
from ctc_imaging.errors import ConfigError

QUICK = Schedule(epochs=4, crops_per_epoch=64, batch=32, threads=1, patience=0)
TINY = {"width": 8, "hidden": 16}


def crop_set(count: int = 60, seed: int = 0, soft: bool = False) -> CropSet:
    """Crops of three classes that differ by their marker."""
    rng = np.random.default_rng(seed)
    target = rng.permutation(np.arange(count) % 3)
    roles = rng.normal(0, 1, (count, 4, 48, 48))
    masks = np.zeros((count, 2, 48, 48), np.uint8)
    masks[:, 0, 14:34, 14:34] = masks[:, 1, 18:30, 18:30] = 255
    roles[:, 0] += 10 * (masks[:, 1] > 0)
    roles[target == 0, 1] += 10 * (masks[target == 0, 0] > 0)
    roles[target == 1, 3] += 8 * (masks[target == 1, 0] > 0)
    snr = np.stack([10.0 * (target == 0), np.zeros(count), 8.0 * (target == 1)], axis=1)
    labels = np.eye(3, dtype=np.float32)[target]
    return CropSet(
        roles.astype(np.float16), masks, np.ones((count, 4), np.float32), target.astype(np.int64),
        (snr * np.nan if soft else snr).astype(np.float32), np.array(["cell"] * count), np.array(["s"] * count), {},
        labels if soft else None, np.ones(count, np.float32) if soft else None,
    )  # fmt: skip


def same(one, other) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


class KilledError(Exception):
    """The machine went down."""


@pytest.mark.parametrize("last", [1, 3])
@pytest.mark.parametrize("held_out", [None, crop_set(30, seed=5, soft=True)])
def test_a_killed_training_ends_as_an_uninterrupted_one(tmp_path, last, held_out):
    crops, checkpoint = crop_set(), tmp_path / "state.safetensors"
    whole = learn(crops, QUICK, TINY, held_out=held_out)

    with pytest.raises(KilledError):
        learn(crops, QUICK, TINY, killed_after(last), held_out=held_out, checkpoint=checkpoint, identity="x")
    torch.manual_seed(99)
    again = learn(crops, QUICK, TINY, held_out=held_out, checkpoint=checkpoint, identity="x")
    assert same(whole.network, again.network)
    assert whole.curve == again.curve


def test_a_state_of_something_else_or_damaged_is_refused(tmp_path):
    crops, checkpoint = crop_set(), tmp_path / "state.safetensors"
    learn(crops, replace(QUICK, epochs=1), TINY, checkpoint=checkpoint, identity="x")
    with pytest.raises(ConfigError, match="of other data, settings or start"):
        learn(crops, QUICK, TINY, checkpoint=checkpoint, identity="y")
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(ConfigError, match="damaged"):
        learn(crops, QUICK, TINY, checkpoint=checkpoint, identity="x")
    assert checkpoint_of(Path("models/mine")) == Path("models/.mine.training.safetensors")


def test_training_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    learn(crop_set(), replace(QUICK, epochs=1), TINY)
    torch.testing.assert_close(torch.rand(3), expected)


def test_it_stops_when_nothing_is_gained_and_keeps_the_best(tmp_path):
    """Held-out labels that contradict the training crops: every epoch makes them worse."""
    held_out = crop_set(30, seed=5)
    held_out = replace(held_out, target=(held_out.target + 1) % 3)
    schedule = replace(QUICK, epochs=30, patience=2, crops_per_epoch=128, learning_rate=3e-3)
    state = tmp_path / "state.safetensors"
    learned = learn(crop_set(), schedule, TINY, held_out=held_out, checkpoint=state, identity="x")
    losses = [epoch.held_out_loss for epoch in learned.curve]
    assert len(losses) < 30
    assert learned.kept == int(np.argmin(losses)) + 1 == len(losses) - 2
    state.unlink()
    with pytest.raises(KilledError):
        learn(crop_set(), schedule, TINY, killed_after(learned.kept), held_out=held_out, checkpoint=state, identity="x")
    then = read_checkpoint(state, "x").network
    assert all(torch.equal(tensor, then[name]) for name, tensor in learned.network.state_dict().items())


def killed_after(last):
    """Stop a training after an epoch whose state was written: it is told of an epoch before that is written."""

    def kill(epoch):
        if epoch.epoch == last + 1:
            raise KilledError

    return kill


def test_it_goes_on_from_given_weights():
    first = learn(crop_set(), replace(QUICK, epochs=8, crops_per_epoch=256), TINY)
    second = learn(
        crop_set(seed=3), replace(QUICK, epochs=1, learning_rate=1e-5), TINY, start=first.network.state_dict()
    )
    fresh = learn(crop_set(seed=3), replace(QUICK, epochs=1, learning_rate=1e-5), TINY)
    assert second.curve[0].loss < 0.7 * fresh.curve[0].loss


def test_simulated_crops_come_in_their_share_and_reviewed_ones_keep_their_labels():
    reviewed, simulated = crop_set(30, seed=1, soft=True), crop_set(90, seed=2)
    mixed = mixture(reviewed, replace(QUICK, simulated_share=0.25), simulated)
    rows = mixed.draw(20_000, torch.Generator().manual_seed(0)).numpy()
    assert (rows >= 30).mean() == pytest.approx(0.25, abs=0.02)
    drawn = mixed.sample(rows[:500])
    np.testing.assert_array_equal(drawn.read.numpy(), rows[:500] < 30)
    expected = np.concatenate([reviewed.target, simulated.target])[rows[:500]]
    np.testing.assert_array_equal(drawn.sample.target.numpy(), expected)
    np.testing.assert_array_equal(drawn.soft.argmax(1).numpy(), expected)


def test_an_unknown_marker_is_taught_by_the_model_before_and_is_nothing_without():
    drawn = draw_of(crop_set(12, soft=True), np.arange(12))
    logits, positivity = torch.zeros(12, 3), torch.full((12, 3), 4.0)
    alone = loss_of(logits, positivity, drawn.sample, drawn.soft)
    assert alone.item() == pytest.approx(np.log(3), rel=1e-5)
    agreeing = loss_of(logits, positivity, drawn.sample, drawn.soft, torch.sigmoid(positivity))
    contradicting = loss_of(logits, positivity, drawn.sample, drawn.soft, torch.sigmoid(-positivity))
    assert alone < agreeing < contradicting


@given(
    st.lists(st.integers(0, 100_000), min_size=3, max_size=3).filter(any),
    st.sampled_from(["inverse", "effective", "none"]),
)
def test_class_shares_sum_to_one_and_need_crops(counts, balance):
    shares = class_shares(counts, replace(QUICK, balance=balance))
    assert shares.sum() == pytest.approx(1)
    assert (shares[np.array(counts) == 0] == 0).all()


def test_class_shares_by_hand():
    counts = [100, 9_900, 0]
    assert class_shares(counts, replace(QUICK, balance="none")).tolist() == [0.01, 0.99, 0]
    assert class_shares(counts, replace(QUICK, balance="inverse")).tolist() == [0.5, 0.5, 0]
    weights = [count * (1 - EFFECTIVE) / (1 - EFFECTIVE**count) for count in counts[:2]]
    assert class_shares(counts, replace(QUICK, balance="effective"))[0] == pytest.approx(weights[0] / sum(weights))
    crops = crop_set(30, soft=True)
    crops = replace(crops, weight=np.where(np.arange(30) == 4, 3, 1).astype(np.float32))
    own = sampling_weights(crops, QUICK)
    others = (crops.target == crops.target[4]) & (np.arange(30) != 4)
    assert own[4] == pytest.approx(3 * own[others][0])


def test_settings_from_a_file_go_before_the_default_ones(tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text(
        "epochs: 3\nlearning_rate: 3e-4\nclass_shares: [1, 1, 2]\nbalance: shares\narchitecture: {width: 8}\n"
    )
    schedule, size = load_schedule(file, FINE_TUNING)
    assert (schedule.epochs, schedule.learning_rate, schedule.patience) == (3, 3e-4, FINE_TUNING.patience)
    assert schedule.class_shares == (0.25, 0.25, 0.5)
    assert size == {**default_architecture(), "width": 8}
    assert load_schedule(None, QUICK, TINY) == (QUICK, TINY)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 3", "epoch: the setting isn't known; did you mean epochs"),
        ("epochs: many", "'many' isn't a whole number"),
        ("epochs: 0", "0 is out of range; use 1 to 10000"),
        ("learning_rate: quick", "isn't a number"),
        ("learning_rate: .nan", "out of range"),
        ("precision: half", "use one of float32, bfloat16"),
        ("class_shares: [1, 2]", "isn't three shares"),
        ("architecture: {wide: 3}", "the setting isn't known"),
        ("architecture: 3", "has no names"),
        ("- 1", "not a list of settings"),
        ("epochs: [", "not YAML"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(tmp_path, text, said):
    file = tmp_path / "train.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_schedule(file, QUICK)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_network_of_a_start_can_not_be_changed(tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text("architecture: {width: 9}\n")
    with pytest.raises(ConfigError, match="not that of the model training starts from"):
        load_schedule(file, QUICK, TINY)


def test_half_the_precision_learns_as_well():
    schedule = replace(QUICK, epochs=3, crops_per_epoch=256)
    full, half = (learn(crop_set(), replace(schedule, precision=name), TINY) for name in ("float32", "bfloat16"))
    assert half.curve[-1].loss == pytest.approx(full.curve[-1].loss, rel=0.15)


def test_curves_are_a_table_and_a_picture(tmp_path):
    curve = [Epoch(1, 0.5, 0.4), Epoch(2, 0.3, 0.2), Epoch(3, 0.2, 0.3)]
    assert kept_epoch(curve) == 2
    assert kept_epoch([Epoch(1, 0.5), Epoch(2, 0.6)]) == 2
    write_curves(tmp_path, curve)
    table = pd.read_csv(tmp_path / "curves.csv")
    assert table["kept"].tolist() == [False, True, False]
    assert (tmp_path / "curves.png").stat().st_size > 5_000


def test_what_a_model_has_seen_includes_what_its_start_has(tmp_path):
    rows = pd.DataFrame({"scan_sha256": ["b", ""], "crop_sha256": ["c", "d"]})
    earlier = pd.DataFrame({"kind": ["scan", "crop"], "sha256": ["a", "c"]})
    write_seen(tmp_path, rows, [earlier])
    seen = pd.read_csv(tmp_path / "seen.csv")
    assert list(zip(seen["kind"], seen["sha256"], strict=True)) == [
        ("crop", "c"), ("crop", "d"), ("scan", "a"), ("scan", "b"),
    ]  # fmt: skip


def test_no_model_and_no_state_is_ever_unpickled(tmp_path, monkeypatch):
    """Weights come from strangers: reading them must not run code."""
    package = Path(ctc_imaging.__file__).parent
    import ctc_training

    sources = [*package.rglob("*.py"), *Path(ctc_training.__file__).parent.rglob("*.py")]
    assert len(sources) > 100
    for file in sources:
        text = file.read_text(encoding="utf-8")
        assert "torch.load(" not in text, file
        assert "allow_pickle=True" not in text, file

    def refuse(*_args, **_options):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    checkpoint = tmp_path / "state.safetensors"
    learn(crop_set(), replace(QUICK, epochs=1), TINY, checkpoint=checkpoint, identity="x")
    learned = learn(crop_set(), replace(QUICK, epochs=1), TINY, checkpoint=checkpoint, identity="x")
    assert isinstance(learned.network, CellNetwork)
