"""The command recurrence plan: how many patients a trial of 2-year recurrence-free survival needs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import result

Design = Annotated[str, typer.Option(metavar="NAME", help="enrichment, marker-stratified or cohort.")]
Question = Annotated[str, typer.Option(metavar="NAME", help="If marker-stratified: positive, interaction or overall.")]
Test = Annotated[str, typer.Option(metavar="NAME", help="log-rank, or rfs: survival at the horizon.")]
Patients = Annotated[int | None, typer.Option(metavar="N", min=4, help="Give the power of this size; else search it.")]
Target = Annotated[float, typer.Option("--power", metavar="P", help="Wanted power.")]
HazardRatio = Annotated[float | None, typer.Option(metavar="HR", help="Of treatment, in CTC-positive patients.")]
Negative = Annotated[float | None, typer.Option(metavar="HR", help="Of treatment, in CTC-negative patients.")]
RfsPositive = Annotated[float | None, typer.Option(metavar="S", help="Untreated 2-year RFS, CTC-positive.")]
RfsNegative = Annotated[float | None, typer.Option(metavar="S", help="Untreated 2-year RFS, CTC-negative.")]
Prevalence = Annotated[float | None, typer.Option(metavar="P", help="Share of patients that are CTC-positive.")]
Sensitivity = Annotated[float | None, typer.Option(metavar="P", help="Of the CTC test.")]
Specificity = Annotated[float | None, typer.Option(metavar="P", help="Of the CTC test.")]
TreatedShare = Annotated[float | None, typer.Option(metavar="P", help="Share randomised to treatment.")]
Accrual = Annotated[float | None, typer.Option(metavar="M", help="Months in which patients enter.")]
FollowUp = Annotated[float | None, typer.Option(metavar="M", help="Months the last patient is followed.")]
Dropout = Annotated[float | None, typer.Option("--dropout", metavar="P", help="Share lost in a year.")]
Shape = Annotated[float | None, typer.Option(metavar="K", help="Weibull shape; below 1 the hazard falls.")]
Alpha = Annotated[float | None, typer.Option(metavar="P", help="Two-sided.")]
Replicates = Annotated[int, typer.Option(metavar="N", min=10, help="Trials to simulate of each size.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")]


def plan(
    design: Design = "enrichment",
    question: Question = "positive",
    test: Test = "log-rank",
    patients: Patients = None,
    power: Target = 0.8,
    hazard_ratio: HazardRatio = None,
    hazard_ratio_negative: Negative = None,
    rfs_positive: RfsPositive = None,
    rfs_negative: RfsNegative = None,
    prevalence: Prevalence = None,
    sensitivity: Sensitivity = None,
    specificity: Specificity = None,
    treated_share: TreatedShare = None,
    accrual_months: Accrual = None,
    follow_up_months: FollowUp = None,
    dropout: Dropout = None,
    shape: Shape = None,
    alpha: Alpha = None,
    replicates: Replicates = 2000,
    seed: Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Plan a trial of 2-year recurrence-free survival.

    Trials are simulated under what is assumed; each assumption is printed with its source.
    """
    given = {
        "hazard_ratio": hazard_ratio,
        "hazard_ratio_negative": hazard_ratio_negative,
        "rfs_positive": rfs_positive,
        "rfs_negative": rfs_negative,
        "prevalence": prevalence,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "treated_share": treated_share,
        "accrual_months": accrual_months,
        "follow_up_months": follow_up_months,
        "dropout_per_year": dropout,
        "shape": shape,
        "alpha": alpha,
    }
    from ctc_imaging.progress import show_progress
    from ctc_imaging.recurrence.decision_words import plan_facts, plan_lines
    from ctc_imaging.recurrence.planning import power_of, sample_size
    from ctc_imaging.recurrence.trial_plan import Plan

    wanted = {name: value for name, value in given.items() if value is not None}
    planned = Plan(design=design, question=question, test=test, **wanted)  # type: ignore[arg-type]
    with show_progress(sys.stderr, "trials simulated" if patients else "sizes tried") as tell:
        if patients is not None:
            size, found = None, power_of(planned, patients, replicates, seed, _counted(tell))
        else:
            size = sample_size(planned, power, replicates, seed, _counted(tell))
            found = size.found
    result(plan_facts(planned, found, size), "\n".join(plan_lines(planned, found, size)), as_json)


def _counted(tell: Callable[..., None]) -> Callable[[int, int], None]:
    from ctc_imaging.progress import Tally

    return lambda done, total: tell(Tally(total, done, 0))
