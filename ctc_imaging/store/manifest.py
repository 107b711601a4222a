"""The hashes of a slide's results: taken when they are made, held against what lies on disk later."""

from __future__ import annotations

from pathlib import Path

from ctc_imaging.files import sha256_file


def hash_parts(folder: Path) -> dict[str, str]:
    """Hash all that lies in a slide's folder.

    Returns
    -------
    dict of str to str
        SHA-256 as hex by name, in the order of the names; a folder in it, as of a Zarr image, has one.
    """
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
