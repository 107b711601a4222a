"""How a scanner counts the fields of a grid: from which corner, in which order, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.frame_positions import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ctc_imaging.readers.frame_layout import FrameLayout


@dataclass(frozen=True)
class Numbering:
    """The fields of a grid of `rows` x `columns`, counted by index or by row and column.

    `first` is the first index, or the first row and the first column.
    """

    rows: int
    columns: int
    order: str
    start: str
    first: tuple[int, ...]

    @classmethod
    def of(cls, layout: FrameLayout, numbers: Sequence[Mapping[str, float]]) -> Numbering:
        """Find where counting starts (0 if there is one, else 1), and rows and columns where the layout tells none."""
        by_index = "row" not in layout.pattern.names
        axes = ("index",) if by_index else ("row", "column")
        first = tuple(_first(layout.grid.first_index, {int(one[axis]) for one in numbers}) for axis in axes)
        if by_index:
            counts = [layout.grid.rows or 1, layout.grid.columns or 1]
        else:
            told = (layout.grid.rows, layout.grid.columns)
            counts = [
                count or max(int(one[axis]) for one in numbers) - start + 1
                for count, axis, start in zip(told, axes, first, strict=True)
            ]
        return cls(counts[0], counts[1], layout.grid.order, layout.grid.start, first)

    def place(self, numbers: Mapping[str, float], file: Path) -> Place:
        """Return the place of the field with these numbers; raise SlideError, naming `file`, if it is off the grid."""
        if len(self.first) == 1:
            number = int(numbers["index"]) - self.first[0]
            row, column = self._in_order(number)
            name = f"field {int(numbers['index'])}"
        else:
            row, column = (
                int(numbers[axis]) - start for axis, start in zip(("row", "column"), self.first, strict=True)
            )
            name = f"row {int(numbers['row'])}, column {int(numbers['column'])}"
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            fault = f"{name} isn't on the grid of {self.rows} rows and {self.columns} columns"
            raise SlideError(file, fault, "correct rows, columns or first_index in frames.yaml")
        if self.start.startswith("bottom"):
            row = self.rows - 1 - row
        if self.start.endswith("right"):
            column = self.columns - 1 - column
        return Place(row, column, "grid")

    def all(self) -> Iterator[tuple[str, Mapping[str, float]]]:
        """Yield what each field is called and its numbers, in the order of the scan."""
        total = self.rows * self.columns
        for number in range(total):
            row, column = self._in_order(number) if len(self.first) == 1 else divmod(number, self.columns)
            name = f"field {number + 1} of {total} (row {row + 1}, column {column + 1})"
            if len(self.first) == 1:
                yield name, {"index": number + self.first[0]}
            else:
                yield name, {"row": row + self.first[0], "column": column + self.first[1]}

    def _in_order(self, number: int) -> tuple[int, int]:
        """Row and column of the n-th field, from the corner where the scan starts; beyond the grid for none of it."""
        by_column = self.order.endswith("column")
        length = self.rows if by_column else self.columns
        line, at = divmod(number, length)
        if self.order.startswith("snake") and line % 2:
            at = length - 1 - at
        return (at, line) if by_column else (line, at)


def _first(told: int | None, numbers: set[int]) -> int:
    if told is not None:
        return told
    return 0 if 0 in numbers else 1
