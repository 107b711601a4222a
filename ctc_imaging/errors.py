"""Every error a user can cause, each naming the file, the fault and the remedy."""

from __future__ import annotations

import errno
from pathlib import Path

_DISK_FAULTS = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EFBIG: ("the file would be larger than the disk or a limit allows", "use another disk, or lift the limit"),
    errno.EROFS: ("the disk can only be read", "choose a folder that can be written to"),
    errno.EACCES: ("permission denied", "check the permissions"),
    errno.EPERM: ("permission denied", "check the permissions"),
    errno.EIO: ("the disk fails to read or write", "check the disk and its cables, then run the same command again"),
}


_LONGEST_FAULT = 400


class CtcImagingError(Exception):
    """Base of all errors that are the input's fault, not the program's.

    Parameters
    ----------
    where : str or Path
        The file, folder or option at fault.
    fault : str
        What is wrong with it, without a full stop.
    remedy : str
        What the user can do about it, without a full stop.
    """

    def __init__(self, where: str | Path, fault: str, remedy: str) -> None:
        # What is wrong may quote the input, which may be of any length.
        fault = fault if len(fault) <= _LONGEST_FAULT else f"{fault[:_LONGEST_FAULT]}..."
        super().__init__(str(where), fault, remedy)
        self.where = str(where)
        self.fault = fault
        self.remedy = remedy

    def __str__(self) -> str:
        """One line: ``where: fault; remedy``."""
        return " ".join(f"{self.where}: {self.fault}; {self.remedy}".split())


class SlideError(CtcImagingError):
    """A slide can't be read, or isn't what its metadata says."""


class PanelError(CtcImagingError):
    """A panel is malformed, or doesn't fit a slide's channels."""


class TableError(CtcImagingError):
    """A table (cohort, clinical, imaging, markers, reviews) is malformed."""


class ConfigError(CtcImagingError):
    """A configuration file or option has no meaning."""


class ModelError(CtcImagingError):
    """A model is missing, damaged or doesn't fit the panel."""


class RunError(CtcImagingError):
    """A RUN folder is missing, damaged, or made by other settings."""


class VersionError(RunError):
    """A RUN folder was made by a newer version than this one."""


class SignedError(RunError):
    """A signed sample would be changed without a word why."""


class SegmentationError(CtcImagingError):
    """An image can't be segmented (empty, constant, not a plane, ...)."""


class StatisticsError(CtcImagingError):
    """A statistical model can't be fitted to the data as they are."""


def disk_fault(error: OSError) -> tuple[str, str] | None:
    """Say what a failed system call means to a user, as fault and remedy; None where only its own words can tell."""
    return _DISK_FAULTS.get(error.errno or 0)
