"""The data of a picture as a CSV file inside the page, so that nothing has to be read off it by eye."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    import pandas as pd

_DIGITS = "%.6g"
# What a link may hold as it is; base64 would make it a third longer.
_PLAIN = ",:;/()*!@$"


def csv_link(table: pd.DataFrame) -> str:
    """Put a table into a link.

    Parameters
    ----------
    table : DataFrame
        Its index isn't written; numbers have six digits.

    Returns
    -------
    str
        ``data:text/csv;...``, or empty where the table has no row.

    Examples
    --------
    >>> import pandas as pd
    >>> csv_link(pd.DataFrame({"day": [7], "ctc_per_ml": [0.4]}))
    'data:text/csv;charset=utf-8,day,ctc_per_ml%0A7,0.4%0A'
    """
    if table.empty:
        return ""
    return "data:text/csv;charset=utf-8," + quote(
        table.to_csv(index=False, float_format=_DIGITS, lineterminator="\n"), safe=_PLAIN
    )
