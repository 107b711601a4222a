"""What is said of one patient's risk: how sure it is, what changed since the last visit, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctc_imaging.report.words import interval, number, p_value, percent, plural
from ctc_imaging.timeline import change_p_value

if TYPE_CHECKING:
    import pandas as pd

_SURE, _LOW, _HIGH = 0.2, 0.3, 0.6
_LEAST_STEP = 0.02
_VERDICTS = {
    "rise": "a rise, more than chance would explain",
    "fall": "a fall, more than chance would explain",
    "not_distinguishable": "no more than chance would explain",
}


@dataclass(frozen=True)
class Standing:
    """Where a patient stands after the last count; `open` if the risk still lies ahead."""

    open: bool
    short: str
    sentence: str


def sureness(low: float, high: float) -> str:
    """Say how near to each other the limits of a risk are.

    Parameters
    ----------
    low, high : float
        95 % limits, 0 to 1.

    Returns
    -------
    str
    """
    if high - low < _SURE:
        return "The limits are close, if the model holds for this patient."
    if low < _LOW and high > _HIGH:
        return "The limits are very wide: the counts so far fit a low risk as well as a high one."
    return "The limits are wide: take the risk as a rough figure."


def on_day(day: float) -> str:
    """Say a day since surgery, in months too where days alone are hard to picture.

    Examples
    --------
    >>> on_day(7.0), on_day(347.0), on_day(-3.0)
    ('day 7', 'day 347 (11.4 months)', 'day −3')
    """
    months = interval(day)
    plain = f"day {day:.0f}".replace("-", "−")
    return plain if abs(day) < 45 else f"{plain} ({months})"


def risk_change(course: pd.DataFrame) -> str:
    """Say how the risk moved from the visit before to the latest, and whether that is more than its limits allow.

    Parameters
    ----------
    course : DataFrame
        As of `recurrence.joint.prediction.updates`.

    Returns
    -------
    str
    """
    earlier = course[course["time"] > 0].iloc[:-1]
    if earlier.empty:
        return "This is the first count after surgery, so there is no earlier risk to compare with."
    before, latest = earlier.iloc[-1], course.iloc[-1]
    step = float(latest["risk"] - before["risk"])
    was = f"{_limited(before)} on {on_day(float(before['time']))}"
    if abs(step) < _LEAST_STEP:
        return f"The risk hardly changed: it was {was}."
    apart = before["high"] < latest["low"] or latest["high"] < before["low"]
    told = "more than the limits allow for" if apart else "the limits overlap, so this is no clear change"
    return f"The risk {'rose' if step > 0 else 'fell'} from {was} to {_limited(latest)}: {told}."


def direction(course: pd.DataFrame, series: pd.DataFrame) -> str:
    """Say why risk and count moved apart, where they did.

    Parameters
    ----------
    course : DataFrame
        As of `recurrence.joint.prediction.updates`.
    series : DataFrame
        One patient's rows of the timeline, in order, up to the latest count.

    Returns
    -------
    str
        Empty where both moved the same way, or there is nothing to compare.
    """
    risks = course.loc[course["time"] > 0, "risk"].to_numpy(float)[-2:]
    counts = series.loc[series["visit_status"] == "done", "ctc_per_ml"].to_numpy(float)[-2:]
    if len(risks) < 2 or len(counts) < 2:
        return ""
    step = risks[1] - risks[0]
    if step < _LEAST_STEP and counts[1] > counts[0]:
        weighed = "both weighed alike" if step > -_LEAST_STEP else "the time weighed more"
        return f"A higher count raises the risk, time passed without recurrence lowers it; here {weighed}."
    if abs(step) < _LEAST_STEP:
        return ""
    if step < 0:
        return "Part of the fall is that time passed without recurrence."
    if counts[1] < counts[0]:
        return "A lower count lowers the risk, but earlier counts weigh in too, and one low count may be chance."
    return ""


def _limited(row: pd.Series) -> str:
    return f"{percent(row['risk'])} ({percent(row['low'])} to {percent(row['high'])})"


def count_change(series: pd.DataFrame) -> str:
    """Say how the count moved, with the p-value of the exact test.

    Parameters
    ----------
    series : DataFrame
        One patient's rows of the timeline, in order, up to the latest count.

    Returns
    -------
    str
        Empty where there are not two counts.
    """
    done = series[series["visit_status"] == "done"]
    if len(done) < 2:
        return ""
    before, last = done.iloc[-2], done.iloc[-1]
    counts, days = [counted(one) for one in (before, last)], [on_day(float(one["day"])) for one in (before, last)]
    if counts[0] == counts[1]:
        return f"The count was {counts[0]} on {days[0]} and on {days[1]}."
    told = _VERDICTS.get(str(last["change"]), "")
    moved = f"The count went from {counts[0]} on {days[0]} to {counts[1]} on {days[1]}"
    return f"{moved}: {told} (exact test, {_p(before, last)})." if told else f"{moved}."


def counted(row: pd.Series) -> str:
    """Say a count with its volume and per mL, as in ``8 CTCs in 5 mL (1.6 per mL)``."""
    found, volume = plural(int(row["ctc"]), "CTC"), number(row["assessed_volume_ml"])
    return f"{found} in {volume} mL ({number(row['ctc_per_ml'])} per mL)"


def _p(before: pd.Series, last: pd.Series) -> str:
    pairs = [
        int(before["ctc"]),
        float(before["assessed_volume_ml"]),
        int(last["ctc"]),
        float(last["assessed_volume_ml"]),
    ]
    return p_value(float(change_p_value(*pairs)))


def visits_without_count(series: pd.DataFrame, after: float, until: float) -> str:
    """Say that visits after the latest count gave none.

    Parameters
    ----------
    series : DataFrame
        One patient's rows of the timeline.
    after, until : float
        Days.

    Returns
    -------
    str
        Empty where there was none.
    """
    days = series["day"].astype(float)
    gaps = series[series["visit_status"].isin(["missed", "not_assessable"]) & (days > after) & (days <= until)]
    if gaps.empty:
        return ""
    named = ", ".join(f"day {float(day):.0f}" for day in gaps["day"])
    return f"{plural(len(gaps), 'later visit')} ({named}) gave no count, which is not the same as zero."


def standing(events: dict[str, float], now: float, horizon: float) -> Standing:
    """Say what became of a patient after the latest count, which the risk doesn't know of.

    Parameters
    ----------
    events : dict of str to float
        Days of `recurrence`, `death`, `last_contact`, as far as known.
    now, horizon : float
        Day of the latest count, and the day that the risk is by.

    Returns
    -------
    Standing
    """
    for name, words in (("recurrence", "recurrence"), ("death", "death without recurrence")):
        if name in events:
            return _after_event(words, events[name], horizon)
    last, seen_for = events.get("last_contact", now), interval(horizon)
    if last >= horizon:
        told = f"Free of recurrence {seen_for} after surgery: this risk has passed, and is what was known before."
        return Standing(False, f"free at {seen_for}", told)
    if last > now:
        told = f"Free of recurrence at last contact, {on_day(last)}; the risk is as of the last count."
        return Standing(True, f"free on day {last:.0f}", told)
    return Standing(True, f"free on day {now:.0f}", "")


def _after_event(words: str, day: float, horizon: float) -> Standing:
    if day > horizon:
        told = f"Free of recurrence {interval(horizon)} after surgery, then {words} on {on_day(day)}."
        return Standing(False, f"free at {interval(horizon)}", f"{told} The risk is what was known before.")
    told = (
        f"{words[0].upper()}{words[1:]} on {on_day(day)}: the risk lies in the past, and is what was known before it."
    )
    return Standing(False, f"{words}, day {day:.0f}", told)
