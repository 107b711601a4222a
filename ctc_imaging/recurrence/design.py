"""From a formula, or a list of columns, to the numbers that a regression is fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ctc_imaging.errors import StatisticsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Terms = str | Sequence[str]


@dataclass(frozen=True)
class Design:
    """Columns of a regression without intercept.

    `matrix` has shape (n, k); `names` names its columns, `terms` gives the columns of each term of the formula;
    `spec` is formulaic's own record of it, None for a list of columns.
    """

    matrix: NDArray[np.float64]
    names: tuple[str, ...]
    terms: dict[str, tuple[int, ...]]
    spec: Any = None

    def of(self, data: pd.DataFrame) -> NDArray[np.float64]:
        """Build the same columns for other rows: the same levels, knots and centres.

        Parameters
        ----------
        data : DataFrame

        Returns
        -------
        ndarray of float64, shape (m, k)
            NaN in rows where a number is missing.
        """
        if self.spec is None:
            return data[list(self.names)].to_numpy(dtype=np.float64)
        with np.errstate(all="ignore"):
            return _without_intercept(self.spec.get_model_matrix(data)).to_numpy(dtype=np.float64)


def build_design(data: pd.DataFrame, terms: Terms, model: str) -> Design:
    """Build the design matrix.

    Parameters
    ----------
    data : DataFrame
        One row an observation, nothing missing in the columns used.
    terms : str or sequence of str
        A formula as of formulaic (its right-hand side; the intercept is left out, as the baseline hazard takes its
        place), or names of columns of numbers.
    model : str
        The model's name, for errors.

    Returns
    -------
    Design

    Raises
    ------
    StatisticsError
        If the formula can't be read, a column isn't there, or a value is missing or infinite.
    """
    check_complete(data, used_columns(data, terms, model), model)
    if not isinstance(terms, str):
        names = tuple(terms)
        return Design(data[list(names)].to_numpy(dtype=np.float64), names, {name: (i,) for i, name in enumerate(names)})
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        # What a logarithm of 0 gives is named below.
        with np.errstate(all="ignore"):
            full = Formula(terms).get_model_matrix(data, context={}, na_action="ignore")
    except (FormulaicError, ValueError, TypeError, KeyError, NameError) as error:
        raise _unreadable(model, terms, error) from error
    matrix = _without_intercept(full)
    values = matrix.to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        bad = matrix.columns[~np.isfinite(values).all(axis=0)][0]
        raise StatisticsError(model, f"{bad} isn't a finite number in every row", "correct these rows or the formula")
    names = tuple(map(str, matrix.columns))
    return Design(values, names, _columns_of_terms(full.model_spec, names), full.model_spec)


def used_columns(data: pd.DataFrame, terms: Terms, model: str) -> list[str]:
    """Name the columns of a table that a formula uses.

    Parameters
    ----------
    data : DataFrame
    terms : str or sequence of str
        As of `build_design`.
    model : str
        The model's name, for errors.

    Returns
    -------
    list of str

    Raises
    ------
    StatisticsError
        If the formula can't be read, or uses a column that isn't there.
    """
    needed = _variables(terms, model) if isinstance(terms, str) else list(terms)
    if missing := [name for name in needed if name not in data]:
        has = ", ".join(map(str, data.columns[:12]))
        raise StatisticsError(model, f"there is no column {missing[0]}", f"the table has {has}")
    return needed


def check_complete(data: pd.DataFrame, columns: Sequence[str], model: str) -> None:
    """Refuse rows in which one of the columns is missing.

    Parameters
    ----------
    data : DataFrame
    columns : sequence of str
    model : str
        The model's name, for the error.

    Raises
    ------
    StatisticsError
        Naming the first such column and in how many rows it is missing.
    """
    for name in columns:
        if missing := int(data[name].isna().sum()):
            fault = f"{name} is missing in {missing} of {len(data)} rows"
            raise StatisticsError(model, fault, "leave these rows out, or fill them in by a method of your own")


def _variables(formula: str, model: str) -> list[str]:
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        return sorted(map(str, Formula(formula).required_variables))
    except (FormulaicError, AttributeError, SyntaxError) as error:
        raise _unreadable(model, formula, error) from error


def _unreadable(model: str, formula: str, error: Exception) -> StatisticsError:
    words = str(error).strip().splitlines() or [type(error).__name__]
    return StatisticsError(model, f"the formula {formula!r} can't be read ({words[0]})", "write it as in 'arm + age'")


def _without_intercept(matrix: pd.DataFrame) -> pd.DataFrame:
    return matrix.drop(columns="Intercept", errors="ignore")


def _columns_of_terms(spec: Any, names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    place = {name: i for i, name in enumerate(names)}
    columns = {str(term): [spec.column_names[i] for i in indices] for term, indices in spec.term_indices.items()}
    found = {term: tuple(place[name] for name in own if name in place) for term, own in columns.items()}
    return {term: own for term, own in found.items() if own}
