"""The joint model of a run where nobody says another: counts per volume of blood, MVI, AFP and tumour size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.recurrence.covariates import LEAST_KNOWN, MIN_EVENTS_PER_TERM
from ctc_imaging.recurrence.joint.spec import JointSpec, MarkerSpec

if TYPE_CHECKING:
    from ctc_imaging.recurrence.follow_up import FollowUp

# Clinical columns of numbers, in order of importance, and how they enter the hazard.
_TERMS = {"mvi": "{}", "afp": "np.log2(1 + {})", "size_cm": "{}", "size": "{}"}


def default_spec(follow_up: FollowUp) -> JointSpec:
    """Choose the joint model of a run.

    Negative binomial counts with a random intercept and a common trend, the assessed volume of blood as exposure;
    a Weibull hazard that depends on the current log rate of CTCs, and on as many of MVI, AFP and tumour size as
    there are tens of events for.

    Parameters
    ----------
    follow_up : FollowUp
        As of `follow_up_of_run`.

    Returns
    -------
    JointSpec
    """
    marker = MarkerSpec("ctc ~ day", "negative-binomial", ("intercept",), "assessed_volume_ml")
    return JointSpec((marker,), event_formula=_event_formula(follow_up))


def _event_formula(follow_up: FollowUp) -> str:
    room = int(follow_up.events[follow_up.event].sum()) // MIN_EVENTS_PER_TERM - 1
    columns = {str(name).lower(): str(name) for name in follow_up.events}
    usable = [
        term.format(f"`{columns[name]}`")
        for name, term in _TERMS.items()
        if name in columns and _tells(follow_up.events[columns[name]])
    ]
    return " + ".join(usable[: max(room, 0)]) or "1"


def _tells(values: pd.Series) -> bool:
    """Say whether a covariate is a number, known for most, and not the same for all."""
    return bool(
        pd.api.types.is_numeric_dtype(values) and values.notna().mean() >= LEAST_KNOWN and np.ptp(values.dropna()) > 0
    )
