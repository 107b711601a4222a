"""Training: labels match the truth, augmentation keeps it true, thresholds keep their promise, a model comes out."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from ctc_training import augment
from ctc_training.augment import Sample
from ctc_training.build import hash_crops, make_model
from ctc_training.calibrate import PREVALENCE, conformal_sets, ctc_threshold, fit_calibration, threshold_for
from ctc_training.card import model_card
from ctc_training.dataset import (
    FRAGMENT,
    UNMATCHED,
    CropSet,
    Recipe,
    concatenate,
    label_cells,
    match_cells,
    simulated_crops,
)
from ctc_training.evaluate import evaluate, expected_calibration_error, figures, poisson_rate, proportion
from ctc_training.outputs import Outputs, logits_of, outputs_on
from ctc_training.plan import HARDER, MOST_SLIDES, full_plan, slides, small_plan
from ctc_training.train import Schedule, sampling_weights, train_network
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.classification import CLASSES, read_model
from ctc_imaging.classification.model import Calibration, Classifier, Thresholds
from ctc_imaging.classification.rarity import BALANCED
from ctc_imaging.cli import main
from ctc_imaging.panel import load_panel
from ctc_imaging.positivity import PositivityScale

SMALL = Recipe("standard", seed=5, ctc=20, leukocytes=80, shape_px=(384, 384))
QUICK = Schedule(epochs=1, crops_per_epoch=64, batch=32, threads=1)
TINY = {"width": 8, "hidden": 16}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("crops")


@pytest.fixture(scope="module")
def crops(cache) -> CropSet:
    return simulated_crops([SMALL], cache)


@pytest.fixture(scope="module")
def built(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    messages: list[str] = []
    classifier = make_model(folder, small_plan(0), replace(QUICK, crops_per_epoch=256), cache, messages.append)
    return folder, classifier, messages


def objects(rows) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["y_um", "x_um", "diameter_um", "class", "kind"])
    return table.assign(snr_ck=12.0, snr_vim=2.0, snr_cd45=0.0)


def cells(*places) -> pd.DataFrame:
    return pd.DataFrame(places, columns=["y_um", "x_um"], dtype=float)


def test_nearest_within_the_radius_and_one_to_one():
    truth = objects([(10, 10, 10, "ctc", "ctc"), (10, 20, 10, "leukocyte", "leukocyte")])
    found = match_cells(cells((11, 10), (10, 10.5), (10, 19), (10, 26), (40, 40)), truth)
    assert found.tolist() == [-1, 0, 1, -1, -1]


def test_dirt_on_a_cell_does_not_take_its_place():
    truth = objects([(10, 10, 4, "artefact", "dye_aggregate"), (12, 10, 10, "leukocyte", "leukocyte")])
    assert match_cells(cells((10.1, 10)), truth).tolist() == [1]


def test_of_two_cells_segmented_as_one_the_ctc_counts():
    truth = objects([(10, 10, 10, "leukocyte", "leukocyte"), (10, 16, 12, "ctc", "ctc")])
    assert match_cells(cells((10, 12)), truth).tolist() == [1]
    assert match_cells(cells((10, 12), (10, 16)), truth).tolist() == [0, 1]


def test_labels_name_fragments_and_unmatched_cells():
    truth = objects([(10, 10, 10, "ctc", "ctc"), (50, 50, 6, "artefact", "naked_nucleus")])
    labels = label_cells(cells((10, 10), (13, 10), (50, 51), (80, 80)), truth, load_panel("epithelial-3"))
    assert labels["kind"].tolist() == ["ctc", FRAGMENT, "naked_nucleus", UNMATCHED]
    assert [CLASSES[index] for index in labels["target"]] == ["ctc", "artefact", "artefact", "artefact"]
    np.testing.assert_array_equal(labels["snr"][0], [12, np.nan, 0])
    assert np.isnan(labels["snr"][1]).all()


def test_no_truth_makes_every_cell_an_artefact():
    labels = label_cells(cells((1, 1)), objects([]), load_panel("emt-4"))
    assert labels["kind"].tolist() == [UNMATCHED]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=12), st.randoms())
def test_matching_is_one_to_one_and_ignores_the_order_of_cells(places, random):
    truth = objects([(y, x, 8, "leukocyte", "leukocyte") for y, x in sorted(set(places))])
    found = cells(*[(y + 0.01 * index, x + 0.02 * index) for index, (y, x) in enumerate(places)])
    match = match_cells(found, truth)
    taken = match[match >= 0]
    assert len(set(taken)) == len(taken)
    order = random.sample(range(len(found)), len(found))
    np.testing.assert_array_equal(match_cells(found.iloc[order], truth), match[order])


def test_simulated_crops_know_their_cells(crops):
    assert crops.truth == {"standard/5": {"ctc": 20, "leukocyte": 80}}
    assert (crops.target == CLASSES.index("ctc")).sum() >= 18
    assert (crops.target == CLASSES.index("leukocyte")).sum() >= 70
    assert crops.roles.shape[1:] == (4, 48, 48)
    middle = crops.roles[:, :, 20:28, 20:28].astype(float).mean((2, 3))
    is_ctc, is_leukocyte = (crops.target == CLASSES.index(name) for name in ("ctc", "leukocyte"))
    assert np.median(middle[is_ctc, 1]) > 5 > np.median(middle[is_leukocyte, 1])
    assert np.median(middle[is_leukocyte, 3]) > 3 > np.median(middle[is_ctc, 3])


def test_the_cache_gives_the_same_crops_and_minds_the_recipe(crops, cache):
    before = set(cache.iterdir())
    assert hash_crops(simulated_crops([SMALL], cache)) == hash_crops(crops)
    assert set(cache.iterdir()) == before
    assert replace(SMALL, ctc=21).key() != SMALL.key()


def test_crop_sets_join(crops):
    both = concatenate([crops, crops])
    assert len(both) == 2 * len(crops)
    assert both.truth == crops.truth


def random_sample(count=16, seed=0) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    roles = torch.randn((count, 4, 48, 48), generator=generator)
    masks = torch.zeros((count, 2, 48, 48))
    masks[:, 0, 14:34, 14:34] = 1
    masks[:, 1, 18:30, 18:30] = 1
    snr = torch.rand((count, 3), generator=generator) * 10
    return Sample(roles + 10 * masks[:, :1], masks, torch.ones(count, 4), snr, torch.arange(count) % 3)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_augmentation_keeps_shapes_classes_and_absent_markers(seed):
    sample = random_sample()
    changed = augment.augment(sample, torch.Generator().manual_seed(seed))
    assert changed.roles.shape == sample.roles.shape
    assert torch.isfinite(changed.roles).all()
    assert changed.masks.min() >= 0
    assert changed.masks.max() <= 1.0001
    torch.testing.assert_close(changed.target, sample.target)
    absent = changed.present == 0
    assert (changed.roles[absent] == 0).all()
    assert torch.isnan(changed.snr[absent[:, 1:]]).all()


def test_augmentation_is_reproducible_and_leaves_its_input_alone():
    sample = random_sample()
    first, second = (augment.augment(sample, torch.Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(first.roles, second.roles)
    torch.testing.assert_close(sample.roles, random_sample().roles)


def test_gain_changes_the_truth_with_the_stain():
    sample = random_sample()
    changed = augment.restain(sample, torch.Generator().manual_seed(0))
    gain = changed.roles[:, 1:, 24, 24] / sample.roles[:, 1:, 24, 24]
    torch.testing.assert_close(changed.snr / sample.snr, gain, rtol=1e-3, atol=1e-3)


def test_noise_keeps_its_unit():
    """After more noise the background's standard deviation is still 1, and signal has sunk by as much as the truth."""
    sample = replace(random_sample(64), roles=torch.randn(64, 4, 48, 48, generator=torch.Generator().manual_seed(1)))
    changed = next(
        result
        for seed in range(20)
        if (result := augment.add_noise(sample, torch.Generator().manual_seed(seed))) is not sample
    )
    assert changed.roles.std().item() == pytest.approx(1, abs=0.01)
    assert (changed.snr <= sample.snr).all()


def test_size_changes_by_at_most_the_stated_range():
    sample = random_sample(64)
    sizes = [
        torch.sqrt(result.masks[:, 1].sum((1, 2)) / sample.masks[:, 1].sum((1, 2)))
        for seed in range(6)
        if (result := augment.deform(sample, torch.Generator().manual_seed(seed))) is not sample
    ]
    size = torch.cat(sizes)
    low, high = augment.SIZE_RANGE
    assert low * 0.98 <= size.min() < 0.9
    assert 1.1 < size.max() <= high * 1.02


def test_blur_keeps_light():
    sample = random_sample()
    changed = next(
        result
        for seed in range(30)
        if (result := augment.blur(sample, torch.Generator().manual_seed(seed))) is not sample
    )
    torch.testing.assert_close(changed.roles.sum((2, 3)), sample.roles.sum((2, 3)), rtol=0.02, atol=20)
    assert changed.roles.std() < sample.roles.std()


def test_a_marker_is_only_taken_from_a_ctc_that_still_shows_as_one():
    sample = replace(random_sample(3000), target=torch.zeros(3000, dtype=torch.int64), snr=torch.zeros(3000, 3))
    assert (augment.drop_marker(sample, torch.Generator().manual_seed(0)).present == 1).all()
    seen = augment.drop_marker(replace(sample, snr=torch.full((3000, 3), 9.0)), torch.Generator().manual_seed(0))
    for plane, share in augment.DROPOUT.items():
        assert (seen.present[:, plane] == 0).float().mean() == pytest.approx(share, rel=0.3)
    assert (seen.present.sum(1) >= 3).all()


def test_classes_are_drawn_in_their_shares_and_hard_leukocytes_oftener(crops):
    schedule = Schedule(class_shares=(0.5, 0.3, 0.2), hard_weight=4.0)
    weights = sampling_weights(crops, schedule)
    for index, share in enumerate(schedule.class_shares):
        assert weights[crops.target == index].sum() == pytest.approx(share)
    assert (weights[crops.kind == FRAGMENT] == 0).all()
    leukocyte = crops.target == CLASSES.index("leukocyte")
    assert weights[leukocyte].max() == pytest.approx(4 * weights[leukocyte & (crops.snr[:, 2] > 5)].min())


def test_training_learns_and_repeats_itself(crops):
    losses: list[float] = []
    schedule = replace(QUICK, epochs=3, crops_per_epoch=256)
    first = train_network(crops, schedule, TINY, lambda epoch, loss: losses.append(loss))
    second = train_network(crops, schedule, TINY)
    assert losses[-1] < 0.8 * losses[0]
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_calibration_recovers_a_known_temperature_and_the_prevalence():
    """Logits made too sharp by 2 on balanced classes come back, shifted to the prevalence in use."""
    rng = np.random.default_rng(0)
    true_logits = rng.normal(0, 2, (30_000, 3))
    p = np.exp(true_logits) / np.exp(true_logits).sum(axis=1, keepdims=True)
    target = (rng.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1)
    found = fit_calibration(2 * true_logits, target)
    share = np.bincount(target) / len(target)
    bias = np.log(np.array(PREVALENCE) / share)
    assert found.temperature == pytest.approx(2, rel=0.1)
    np.testing.assert_allclose(found.bias, bias - bias[2], atol=0.25)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), max_size=60), st.integers(0, 5))
def test_a_threshold_lets_no_more_pass_than_allowed(values, count):
    false = np.sort(np.array(values, float))[::-1]
    threshold = threshold_for(false, allowed=float(count), leukocytes=100_000)
    passed = (false >= threshold).sum()
    assert passed <= count or threshold == 1.0


def test_the_threshold_is_the_lowest_that_keeps_its_promise():
    target = np.array([1] * 99_000 + [0] * 100)
    p_ctc = np.concatenate([np.linspace(0, 0.999, 99_000), np.full(100, 0.9995)])
    found = ctc_threshold(p_ctc, target, leukocytes=100_000)
    assert (p_ctc[target == 1] >= found).sum() == 1
    assert found == pytest.approx(0.999, abs=1e-4)


def test_without_anything_like_a_ctc_a_call_must_still_be_likelier_than_not_where_ctcs_are_rare():
    assert ctc_threshold(np.array([0.0, 0.001, 0.9]), np.array([1, 2, 0]), leukocytes=2) > 0.9


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([0.9, 0.95, 0.99]))
def test_prediction_sets_hold_the_share_they_promise(seed, coverage):
    """Of the very cells they were chosen on, at least that share; of a class of few cells, all."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([1, 1, 1], 600)
    target = np.r_[np.zeros(300, int), np.ones(295, int), np.full(5, 2)]
    sets = conformal_sets(p, target, coverage)
    for index, least in enumerate(sets):
        assert (p[target == index, index] >= least).mean() >= coverage - 1e-9
    assert sets[2] == 0


def test_limits_known_from_tables():
    """Clopper-Pearson 8 of 10, and Garwood 0 and 3 events, as printed in textbooks."""
    assert proportion(8, 10) == {"value": 0.8, "low": 0.443905, "high": 0.974789}
    assert proportion(0, 0) == {"value": None, "low": None, "high": None}
    assert poisson_rate(0, 100_000) == {"value": 0.0, "low": 0.0, "high": 3.689}
    assert poisson_rate(3, 100_000) == {"value": 3.0, "low": 0.619, "high": 8.767}


def test_calibration_error_by_hand():
    """Each class weighs the same: of the CTCs 8 are right, of the leukocytes none."""
    p = np.array([[0.8, 0.1, 0.1]] * 10)
    assert expected_calibration_error(p, np.zeros(10, int)) == pytest.approx(0.2)
    assert expected_calibration_error(p, np.array([0] * 8 + [1] * 2)) == pytest.approx(0.3)
    assert expected_calibration_error(p[:0], np.zeros(0, int)) is None


def fixed_classifier() -> Classifier:
    scales = {"epithelial": PositivityScale(1, 0), "mesenchymal": PositivityScale(1, 0)}
    calibration = Calibration(1.0, (0.0, 0.0, 0.0), BALANCED)
    return Classifier("fixed", None, calibration, Thresholds(0.9, (0.2, 0.2, 0.2), 0.99), scales, {})


def made_outputs(p, target, setting, kind, truth, nucleate=True) -> Outputs:
    count = len(p)
    return Outputs(
        logits=np.log(np.clip(np.array(p, float), 1e-9, 1)).astype(np.float32),
        markers=np.zeros((count, 2), np.float32),
        relative=np.zeros((count, 2)),
        nucleate=np.full(count, nucleate),
        target=np.array(target),
        snr=np.full((count, 3), np.nan, np.float32),
        setting=np.array(setting),
        kind=np.array(kind),
        truth=truth,
    )


def test_unsegmented_and_indeterminate_ctcs_count_as_missed():
    kinds = ["ctc", "ctc", "fibre", "leukocyte"]
    p = [[0.95, 0.05, 0], [0.5, 0.5, 0], [0.92, 0.08, 0], [0, 1, 0]]
    counts = Counter({"ctc": 4, "leukocyte": 100_000})
    outputs = made_outputs(p, [0, 0, 1, 1], ["s"] * 4, kinds, {"s": counts})
    found = figures(fixed_classifier(), outputs, counts)
    assert found["sensitivity"]["value"] == 0.25
    assert found["false_ctc"] == 1
    assert found["false_kinds"] == {"fibre": 1}
    assert found["false_ctc_per_100k"]["value"] == 1
    assert found["decided"] == 0.75
    assert found["sensitivity_at_fp"]["1"]["value"] == 0.5
    assert found["confusion"]["ctc"] == {"ctc": 1, "indeterminate": 1}


def test_what_has_no_nucleus_is_never_a_ctc():
    counts = Counter({"ctc": 1, "leukocyte": 1})
    outputs = made_outputs([[0.95, 0.05, 0]], [0], ["s"], ["ctc"], {"s": counts}, nucleate=False)
    assert figures(fixed_classifier(), outputs, counts)["sensitivity"]["value"] == 0


def test_evaluation_tells_all_and_by_source():
    outputs = made_outputs(
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]],
        [0, 1, 2, 1],
        ["standard", "standard", "dense", "dense"],
        ["ctc", "leukocyte", "fibre", "leukocyte"],
        {"standard": Counter(ctc=1, leukocyte=1), "dense": Counter(leukocyte=1)},
    )
    found = evaluate(fixed_classifier(), outputs)
    assert found["by_source"]["standard"]["sensitivity"]["value"] == 1
    assert found["by_source"]["dense"]["sensitivity"]["value"] is None
    assert (found["ctc"], found["leukocytes"], found["false_ctc"]) == (1, 2, 1)
    assert set(found["sensitivity_at_fp"]) == {"1", "10", "100"}


def test_purposes_share_no_slide():
    for plan in (full_plan(0), full_plan(3), small_plan(0)):
        seeds = [{recipe.seed for recipe in part} for part in (plan.training, plan.calibration, plan.test)]
        assert len(set.union(*seeds)) == sum(len(one) for one in seeds)
    assert max(recipe.seed for recipe in full_plan(0).test) < min(recipe.seed for recipe in full_plan(1).training)


def test_a_setting_keeps_its_seeds_whatever_else_is_asked_for():
    alone = slides({"dense": 2}, 1, ctc=1, leukocytes=1)
    among = slides(dict.fromkeys(("standard", *HARDER), MOST_SLIDES), 1, ctc=1, leukocytes=1)
    assert set(alone) <= set(among)
    assert len({recipe.seed for recipe in among}) == len(among)


def test_a_model_folder_is_made_and_says_what_it_is(built):
    folder, classifier, messages = built
    assert read_model(folder).hash == classifier.hash
    description = json.loads((folder / "model.json").read_text())
    assert "simulated" in description["training"]["data"]
    assert description["training"]["slides"]["training"]["settings"] == {"standard": 2}
    assert len(description["training"]["crops_sha256"]) == 64
    assert {"sensitivity_at_fp", "ece", "coverage", "by_source"} <= description["metrics"].keys()
    card = (folder / "CARD.md").read_text()
    assert "simulated slides only" in card
    assert classifier.hash in card
    assert card == model_card(classifier, description)
    assert any("epoch 1 of 1" in message for message in messages)
    assert (folder / "curves.png").is_file()
    assert len((folder / "curves.csv").read_text().splitlines()) == 2


def test_evaluation_uses_the_same_network_as_calls_do(built, crops, cache):
    _, classifier, _ = built
    outputs = outputs_on(classifier, [SMALL], cache)
    np.testing.assert_array_equal(outputs.logits, logits_of(classifier, crops))
    assert outputs.counts("standard") == Counter(ctc=20, leukocyte=80)


def test_train_and_evaluate_on_the_command_line(tmp_path, monkeypatch, capsys, built):
    folder, classifier, _ = built
    monkeypatch.setenv("CTC_IMAGING_MODELS", str(folder.parent))
    small = slides({"standard": 1}, 1, ctc=10, leukocytes=40, shape_px=(256, 256))
    monkeypatch.setattr("ctc_training.plan.test_slides", lambda seed, counts: small)
    gallery = tmp_path / "errors.png"
    assert main(["evaluate", "--model", "tiny", "--slides", "1", "--gallery", str(gallery), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["hash"] == classifier.hash
    assert found["data"] == "simulated"
    assert {"sensitivity_at_fp", "ece", "coverage", "confusion", "by_source", "by_phenotype"} <= found.keys()
    assert gallery.stat().st_size > 5_000


def test_train_on_simulated_slides_on_the_command_line(tmp_path, cache, monkeypatch, capsys):
    """The small way, stopped in its middle: the same command goes on, and leaves nothing but the model."""
    (tmp_path / "train.yaml").write_text("crops_per_epoch: 64\nbatch: 32\nthreads: 1\narchitecture: {width: 8}\n")
    out = tmp_path / "models" / "quick"
    command = ["train", "--simulated", "small", "--cache", str(cache), "--config", str(tmp_path / "train.yaml")]
    command += ["--out", str(out), "--epochs", "2", "--device", "cpu", "--json"]
    with monkeypatch.context() as patch:
        patch.setattr("ctc_training.build.write_curves", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(command) == 130
    assert main(command) == 0
    said = capsys.readouterr()
    assert "going on with a training that was stopped" in said.err
    assert json.loads(said.out)["hash"] == read_model(out).hash
    assert [path.name for path in out.parent.iterdir()] == ["quick"]
    description = json.loads((out / "model.json").read_text())
    assert description["architecture"]["width"] == 8
    assert description["training"]["schedule"]["epochs"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--settings", "moonlight"],
        ["evaluate", "--slides", "0"],
        ["train", "--epochs", "0"],
        ["train", "--simulated", "some"],
        ["train", "--simulated", "none"],
        ["train", "--device", "abacus"],
        ["train", "--simulated", "small", "--start", "nobody"],
        ["dataset", "x", "--split-by", "cell"],
        ["retrain", "nowhere", "--name", "mine"],
        ["promote", "nowhere", "--consensus", "nowhere"],
        ["card", "nobody"],
    ],
)
def test_wrong_use_ends_before_any_work(arguments, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
