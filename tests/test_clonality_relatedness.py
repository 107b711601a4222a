"""Relatedness of two samples: the peer's figures, tails that simulation confirms, single cells that lose alleles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.clonality.cell_pair import of_cells, of_tissue, with_errors
from ctc_imaging.clonality.cell_rates import cell_errors_of, drop_out_of
from ctc_imaging.clonality.cell_tree import CellErrors
from ctc_imaging.clonality.mutations import Sample
from ctc_imaging.clonality.origin import DEFAULT_ERRORS
from ctc_imaging.clonality.pair_likelihood import SIGNALS, likelihood_ratio, log_likelihood, without_errors
from ctc_imaging.clonality.population import fit_as_published, fit_population
from ctc_imaging.clonality.relatedness import relatedness_of
from ctc_imaging.clonality.tail import drawn_statistics, tail_probability
from ctc_imaging.errors import StatisticsError

RARE = 1 / 1021


@pytest.fixture
def lcis(shared_data):
    """Give samples, calls and frequencies of 17 pairs of breast lesions."""
    folder = shared_data / "clonality_lcis"
    table = pd.read_csv(folder / "lcis_maf.csv", dtype=str)
    names = ["Chromosome", "Start_Position", "Reference_Allele", "Tumor_Seq_Allele2"]
    table["mutation"] = table[names].agg(" ".join, axis=1)
    lesions = table[["PatientID", "Tumor_Sample_Barcode"]].drop_duplicates().itertuples(index=False)
    samples = tuple(Sample(patient, lesion, "primary") for patient, lesion in lesions)
    seen = set(zip(table["Tumor_Sample_Barcode"], table["mutation"], strict=True))
    calls = [
        {"sample_id": sample.sample_id, "mutation": mutation, "present": (sample.sample_id, mutation) in seen}
        for sample in samples
        for mutation in table.loc[table["PatientID"] == sample.patient_id, "mutation"].unique()
    ]
    frequencies = pd.read_csv(folder / "marginal_freq.csv", index_col="mutation")["freq"]
    return samples, pd.DataFrame(calls), frequencies


def test_the_peers_likelihood_ratios_and_probabilities(lcis):
    table = relatedness_of(*lcis).set_index("patient_id")
    known = {"TK08": 45.029, "TK24": 153.386, "TK48": 117.314, "TK53": 2.98919}
    for patient, ratio in known.items():
        assert table.loc[patient, "log_likelihood_ratio"] == pytest.approx(ratio, abs=1e-3)
    assert (table["log_likelihood_ratio"] < 1e-6).sum() == 6
    assert table.loc["TK53", "p_clonal"] == pytest.approx(0.579, abs=1e-3)
    assert table.loc["TK53", ["shared", "private_a", "private_b"]].tolist() == [1, 22, 16]
    # The peer's .024 comes of a thousand draws or so; this one is exact.
    assert table.loc["TK53", "p_value"] == pytest.approx(0.024, abs=3 * np.sqrt(0.019 / 1000))


def evidence_of(lcis):
    samples, calls, frequencies = lcis
    wide = calls.pivot(index="mutation", columns="sample_id", values="present")
    pairs = []
    for patient in dict.fromkeys(sample.patient_id for sample in samples):
        one, other = (wide[sample.sample_id] for sample in samples if sample.patient_id == patient)
        known = one.notna() & other.notna()
        one, other = one[known].astype(bool), other[known].astype(bool)
        p = frequencies.reindex(one.index)
        pairs.append(without_errors(p[one & other].to_numpy(), p[one ^ other].to_numpy()))
    return pairs


def test_the_peers_population_model(lcis):
    model = fit_as_published(evidence_of(lcis))
    assert model.converged
    assert (model.mu, model.sigma, model.pi) == pytest.approx((-0.8699, 0.5896, 0.6284), abs=1e-4)
    assert model.log_likelihood == pytest.approx(-308.13, abs=1e-2)


def test_maximum_likelihood_is_higher_than_at_the_published_estimates(lcis):
    from ctc_imaging.clonality.population import _GRID, PopulationModel, _expectations

    pairs = evidence_of(lcis)
    best = fit_population(pairs)
    likelihoods = np.array([log_likelihood(pair, _GRID) for pair in pairs])
    null = np.array([log_likelihood(pair, np.zeros(1))[0] for pair in pairs])

    def total(mu, sigma, pi):
        clonal = _expectations(likelihoods, null, mu, sigma, pi)[0]
        return np.logaddexp(np.log(pi) + clonal, np.log1p(-pi) + null).sum()

    at = best.mu, best.sigma, best.pi
    assert best.log_likelihood == pytest.approx(total(*at))
    for step in np.vstack([np.eye(3), -np.eye(3)]) * 0.005:
        assert total(*np.add(at, step)) < best.log_likelihood
    assert best.log_likelihood > total(-0.8699, 0.5896, 0.6284)
    assert (best.mu, best.pi) == pytest.approx((-0.8699, 0.6284), abs=1e-2)
    assert isinstance(best, PopulationModel)


def test_a_population_of_few_pairs_is_refused():
    with pytest.raises(StatisticsError, match="9 pairs can't tell"):
        fit_population([without_errors(np.array([]), np.full(9, RARE))] * 9)


# Tails


FREQUENCIES = st.lists(st.sampled_from([0.001, 0.01, 0.1, 0.4]), min_size=1, max_size=12)


@given(FREQUENCIES, FREQUENCIES)
def test_drawn_and_listed_tails_agree(shared, private):
    evidence = without_errors(np.array(shared), np.array(private))
    exact = tail_probability(evidence, exact=True)
    drawn = tail_probability(evidence, exact=False, draws=9_000)
    assert abs(drawn.p_value - exact.p_value) <= 5 * drawn.standard_error + 0.02 * exact.p_value
    assert 0 <= exact.p_value <= 1


def test_a_tail_agrees_with_plain_simulation_where_that_reaches():
    evidence = without_errors(np.array([0.05]), np.full(20, 0.05))
    observed = log_likelihood(evidence, SIGNALS)
    observed = (observed - observed[0]).max()
    simulated = drawn_statistics(evidence, 0.0, 200_000, seed=1)
    share = (simulated >= observed - 1e-9).mean()
    p_value = tail_probability(evidence).p_value
    assert p_value == pytest.approx(share, abs=4 * np.sqrt(share / 200_000))


def test_tails_far_below_what_simulation_reaches_are_resolved():
    for shared, below in ((3, 1e-6), (9, 1e-18), (25, 1e-60)):
        evidence = without_errors(np.full(shared, RARE), np.full(20, RARE))
        exact, drawn = tail_probability(evidence, exact=True), tail_probability(evidence, exact=False)
        assert 0 < exact.p_value < below
        assert drawn.p_value == pytest.approx(exact.p_value, rel=0.1)


def test_nothing_shared_says_nothing():
    assert tail_probability(without_errors(np.array([]), np.full(30, RARE))).p_value == 1
    assert likelihood_ratio(without_errors(np.array([]), np.full(30, RARE))) == (0, 0)
    assert likelihood_ratio(without_errors(np.array([]), np.array([]))) == (0, 0)


@given(st.integers(1, 8), st.integers(0, 30), st.floats(1e-4, 0.2))
def test_rarer_mutations_in_common_say_more(shared, private, p):
    common = likelihood_ratio(without_errors(np.full(shared, p), np.full(private, p))).log_ratio
    rare = likelihood_ratio(without_errors(np.full(shared, p / 2), np.full(private, p / 2))).log_ratio
    assert rare >= common - 1e-9


# Single cells


def test_a_cell_without_errors_is_a_sample_of_tissue():
    first, second = np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 1], bool)
    p = np.array([0.01, 0.001, 0.02, 0.001])
    perfect = of_cells(CellErrors(1e-12, 1e-12), 1, np.full(4, np.nan))
    aware = likelihood_ratio(with_errors(first, second, p, (of_tissue(4), perfect)))
    plain = likelihood_ratio(without_errors(p[first & second], p[first ^ second]))
    assert aware.log_ratio == pytest.approx(plain.log_ratio, abs=1e-6)
    assert aware.signal == pytest.approx(plain.signal, abs=1e-4)


RATES = st.floats(0.001, 0.6)


@given(RATES, st.floats(1e-6, 0.1), st.integers(1, 12), st.floats(1e-4, 0.4))
def test_chances_of_all_outcomes_are_chances(drop_out, false, cells, p):
    detection = of_cells(CellErrors(false, drop_out), cells, np.array([np.nan, 0.0, 3.0, 200.0]))
    assert ((detection.seen > 0) & (detection.seen <= 1)).all()
    assert detection.seen[1] <= detection.seen[2] <= detection.seen[3] <= detection.seen[0]
    called = np.ones(4, bool)
    evidence = with_errors(called, called, np.full(4, p), (detection, of_tissue(4)))
    for chances in (evidence.independent, evidence.same):
        assert (chances >= 0).all()
        assert (chances.sum(axis=1) <= 1 + 1e-12).all()


def test_more_cells_in_a_pool_lose_less():
    errors, depth = CellErrors(0.001, 0.3), np.array([np.nan])
    seen = [of_cells(errors, cells, depth).seen[0] for cells in (1, 2, 5, 20)]
    assert seen == sorted(seen)
    assert seen[0] == 0.7


def test_private_mutations_of_the_tumour_speak_less_against_a_cell_that_loses_alleles():
    tumour, cell = np.ones(20, bool), np.arange(20) < 12
    p = np.full(20, RARE)
    ratios = []
    for drop_out in (1e-9, 0.2, 0.4):
        detection = of_cells(CellErrors(1e-4, drop_out), 1, np.full(20, np.nan))
        ratios.append(likelihood_ratio(with_errors(tumour, cell, p, (of_tissue(20), detection))).signal)
    assert ratios == sorted(ratios)
    assert ratios[2] > 0.9 > ratios[0]


def test_samples_without_a_common_site_say_nothing_and_unknown_sites_are_left_out():
    samples = (Sample("P1", "T", "primary"), Sample("P1", "C", "ctc"))
    rows = [("T", "a", 1), ("T", "b", 1), ("C", "a", None), ("C", "c", 1)]
    calls = pd.DataFrame(rows, columns=["sample_id", "mutation", "present"])
    (row,) = relatedness_of(samples, calls, pd.Series({"a": RARE})).to_dict("records")
    assert (row["shared"], row["private_a"], row["private_b"], row["p_value"]) == (0, 0, 0, 1)
    assert row["cell_errors"]
    assert np.isnan(row["p_clonal"])
    assert relatedness_of(samples[:1], calls.iloc[:0], pd.Series({"a": RARE})).empty


@pytest.mark.parametrize("drop_out", [0.05, 0.2, 0.4])
def test_rates_of_cells_come_back_from_germline_sites(drop_out):
    random = np.random.default_rng(0)
    samples = tuple(Sample("P1", f"C{number}", "ctc") for number in range(4))
    rows = []
    for sample in samples:
        lost = random.random((400, 2)) < drop_out
        for _, alternative in lost[~lost.all(axis=1)]:
            rows.append((sample.sample_id, "0/1", float(not alternative)))
        rows += [(sample.sample_id, "0/0", float(random.random() < 0.01)) for _ in range(400)]
    germline = pd.DataFrame(rows, columns=["sample_id", "genotype", "present"])
    found = cell_errors_of(samples, pd.DataFrame(), germline).values()
    assert np.mean([errors.drop_out for errors in found]) == pytest.approx(drop_out, abs=0.06)
    assert [errors.false_discovery for errors in found] == pytest.approx([0.01] * 4, abs=0.01)


def test_a_cell_with_few_sites_leans_on_the_patients_others_and_without_any_on_the_default():
    samples = (
        Sample("P1", "C1", "ctc"),
        Sample("P1", "C2", "ctc"),
        Sample("P2", "C3", "ctc"),
        Sample("P1", "T", "primary"),
    )
    rows = [("C1", "0/1", 1.0)] * 150 + [("C1", "0/1", 0.0)] * 50 + [("C2", "0/1", 0.0)]
    germline = pd.DataFrame(rows, columns=["sample_id", "genotype", "present"])
    found = cell_errors_of(samples, pd.DataFrame(), germline)
    assert set(found) == {"C1", "C2", "C3"}
    assert found["C1"].drop_out == pytest.approx(1 / 3, abs=0.03)
    assert found["C1"].drop_out < found["C2"].drop_out < 0.45
    assert found["C3"] == DEFAULT_ERRORS
    assert cell_errors_of(samples, pd.DataFrame(), None) == dict.fromkeys(["C1", "C2", "C3"], DEFAULT_ERRORS)


@given(st.floats(0.0, 0.9))
def test_the_share_missing_and_the_drop_out_rate_are_each_others_turn(drop_out):
    assert drop_out_of(drop_out / (1 + drop_out)) == pytest.approx(max(drop_out, 1e-5), abs=1e-9)
