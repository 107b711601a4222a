"""What tests of the plug-in's window ask of a run and of the window."""

from __future__ import annotations

from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.record import Review
from ctc_imaging.store.run_folder import RunFolder


def rows_of(run: RunFolder) -> list[Review]:
    with Ledger(run.ledger) as ledger:
        return ledger.reviews()


def words_of(widget) -> list[str]:
    """All that a person can read in a widget, and what its styles say."""
    from qtpy.QtWidgets import QWidget

    texts = []
    for part in [widget, *widget.findChildren(QWidget)]:
        shown = part.text() if hasattr(part, "text") and not part.isHidden() else ""
        texts += [shown, part.toolTip(), part.statusTip(), part.styleSheet(), part.windowTitle(), part.objectName()]
    return [text for text in texts if text]
