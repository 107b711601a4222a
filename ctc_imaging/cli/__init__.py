"""The ``ctc-imaging`` command, nothing else: arguments in, exit code out."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ctc_imaging.errors import CtcImagingError, disk_fault

BAD_USE, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        0 on success, 1 when some slides failed, 2 on bad input or use, 130 on Ctrl-C.
    """
    import typer
    from typer.main import get_command

    from ctc_imaging.cli.app import make_app
    from ctc_imaging.cli.output import fail

    # When a worker is killed, Python's own helper process would complain about locks that nobody gave back.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    arguments = None if argv is None else list(argv)
    try:
        with _plain_warnings():
            code = get_command(make_app()).main(args=arguments, prog_name="ctc-imaging", standalone_mode=False)
    except CtcImagingError as error:
        return fail(str(error), BAD_USE)
    except _click_errors() as error:
        return fail(_usage(error), BAD_USE)
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does: nobody is left to tell.
        sys.stderr.close()
        return 1
    except OSError as error:
        return fail(_system(error), BAD_USE)
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
        return fail("system: no folder can be written to for compiled code; name one in NUMBA_CACHE_DIR", BAD_USE)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        return fail("interrupted; the same command goes on from here", INTERRUPTED)
    return code or 0


def _click_errors() -> tuple[type[Exception], ...]:
    """Find the base of click's errors; typer has click under a private name, but exports an error of it."""
    import typer

    return tuple(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _usage(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "ctc-imaging"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return f"{command}: {message.rstrip('.')}; see {command} --help"


def _system(error: OSError) -> str:
    fault, remedy = disk_fault(error) or (error.strerror or str(error), "check the path and the disk")
    return f"{error.filename or 'system'}: {fault}; {remedy}"


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show warnings as notes to a user, without the place in the code they came from."""
    from ctc_imaging.cli.output import note

    before = warnings.showwarning
    warnings.showwarning = lambda message, *_args, **_options: note(str(message))
    try:
        yield
    finally:
        warnings.showwarning = before
