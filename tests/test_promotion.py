"""When a model counts as worse: exact tests with known answers, and a rule that a lucky tie can't get round."""

from __future__ import annotations

import numpy as np
import pytest
from ctc_training.compare import MOST_LOST, compare, mcnemar
from ctc_training.outputs import Outputs
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.classification.model import Calibration, Classifier, Thresholds
from ctc_imaging.classification.rarity import BALANCED
from ctc_imaging.cli import main

MODEL = Classifier(
    "m", None, Calibration(1.0, (0.0, 0.0, 0.0), BALANCED), Thresholds(0.5, (0.1, 0.1, 0.1), 0.99), {}, {}
)


def outputs(p_ctc, is_ctc) -> Outputs:
    """Outputs that give each cell a probability of being a CTC, and the rest to leukocytes."""
    p = np.clip(np.asarray(p_ctc, float), 1e-6, 1 - 1e-6)
    count = len(p)
    logits = np.stack([np.log(p), np.log(1 - p), np.full(count, -20.0)], axis=1).astype(np.float32)
    texts = np.full(count, "s")
    empty = np.full((count, 3), np.nan, np.float32)
    target = np.where(is_ctc, 0, 1)
    return Outputs(logits, empty[:, :2], empty[:, :2], np.ones(count, bool), target, empty, texts, texts, {})


def judged(lost: int = 0, won: int = 0, false: int = 0, ctc: int = 100, other: int = 400):
    """Compare two models that differ in so many CTCs and false CTCs, with 10 CTCs that both miss."""
    is_ctc = np.arange(ctc + other) < ctc
    before = np.where(is_ctc, 0.97, 0.02)
    before[:10] = 0.3
    after = before.copy()
    after[10 : 10 + lost] = 0.3
    after[:won] = 0.97
    after[ctc : ctc + false] = 0.97
    return compare(MODEL, MODEL, outputs(before, is_ctc), outputs(after, is_ctc))


def test_mcnemar_by_hand():
    """Of 10 changed cells 9 lost: (10 + 1) / 2^10; textbook sign test."""
    before, after = np.r_[np.ones(9), 0, np.ones(20)].astype(bool), np.r_[np.zeros(9), 1, np.ones(20)].astype(bool)
    assert mcnemar(before, after) == {"lost": 9, "won": 1, "p": pytest.approx(11 / 1024, rel=1e-3)}
    assert mcnemar(after, before)["p"] > 0.99
    assert mcnemar(before, before) == {"lost": 0, "won": 0, "p": 1.0}


def test_a_model_as_good_or_better_passes():
    assert judged().faults == ()
    assert judged(won=8).faults == ()
    assert judged(lost=2, won=2, false=1).faults == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lost": 6}, "finds 84 of 100 CTCs, the current model 90"),
        ({"false": 6}, "makes 6 false CTCs among 400 other cells, the current model 0"),
        ({"lost": 40, "won": 5}, "finds 55 of 100 CTCs"),
    ],
)
def test_a_worse_one_is_told_with_its_figures(change, said):
    assert said in "; ".join(judged(**change).faults)


def test_a_lower_threshold_does_not_hide_worse_ranking():
    """The new model finds as many CTCs, but only by letting others pass."""
    is_ctc = np.arange(500) < 100
    before = np.where(is_ctc, 0.97, 0.02)
    after = before.copy()
    after[:30] = 0.6
    after[100:104] = 0.7
    faults = compare(MODEL, MODEL, outputs(before, is_ctc), outputs(after, is_ctc)).faults
    assert faults[0].startswith("even at 3 false CTCs finds 70 of 100 CTCs")


def test_few_cells_do_not_excuse_a_loss():
    """Two of 30 CTCs lost aren't beyond chance, but more than may be lost."""
    found = judged(lost=2, ctc=30)
    assert found.figures["tests"]["ctc_missed"]["p"] > 0.05
    assert MOST_LOST < 2 / 30
    assert found.faults


@given(st.integers(0, 40), st.integers(0, 10), st.integers(0, 40))
def test_more_losses_never_help(lost, won, false):
    if judged(lost, won, false).faults:
        assert judged(lost + 1, won, false).faults
        assert judged(lost, won, false + 1).faults


def test_a_name_that_is_no_folder_is_refused(tmp_path, capsys):
    assert main(["promote", str(tmp_path), "--consensus", str(tmp_path), "--name", "../up"]) == 2
    assert "can't be a folder's name" in capsys.readouterr().err
