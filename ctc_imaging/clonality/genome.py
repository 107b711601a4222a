"""Where a mutation lies: names of chromosomes and mutations, and which build of the human genome is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ctc_imaging.errors import TableError

GRCH37, GRCH38 = "GRCh37", "GRCh38"
CHROMOSOMES = (*(str(number) for number in range(1, 23)), "X", "Y")

_LENGTHS_37 = (
    *(249250621, 243199373, 198022430, 191154276, 180915260, 171115067, 159138663, 146364022, 141213431, 135534747),
    *(135006516, 133851895, 115169878, 107349540, 102531392, 90354753, 81195210, 78077248, 59128983, 63025520),
    *(48129895, 51304566, 155270560, 59373566),
)
_LENGTHS_38 = (
    *(248956422, 242193529, 198295559, 190214555, 181538259, 170805979, 159345973, 145138636, 138394717, 133797422),
    *(135086622, 133275309, 114364328, 107043718, 101991189, 90338345, 83257441, 80373285, 58617616, 64444167),
    *(46709983, 50818468, 156040895, 57227415),
)
LENGTHS_BP: Mapping[str, Mapping[str, int]] = {
    GRCH37: dict(zip(CHROMOSOMES, _LENGTHS_37, strict=True)),
    GRCH38: dict(zip(CHROMOSOMES, _LENGTHS_38, strict=True)),
}
"""Length of each chromosome, by build."""

_BUILDS = {
    **dict.fromkeys(("37", "19", "hg19", "grch37", "b37", "hs37d5", "hs37", "ncbi37"), GRCH37),
    **dict.fromkeys(("38", "hg38", "grch38", "b38", "hs38", "hs38dh", "ncbi38"), GRCH38),
}
_NUMBERED = {"23": "X", "24": "Y", "M": "MT"}
_MUTATION = re.compile(
    r"(?:chr)?([0-9]{1,2}|X|Y|MT?)[ :_]([0-9]+)[ :_]([ACGTN]+|-)(?:[ :_>/])([ACGTN]+|-)", re.IGNORECASE
)


class Site(NamedTuple):
    """A place on the genome: the chromosome without ``chr``, and the position, counted from 1."""

    chromosome: str
    position: int


def build_named(text: str, where: str) -> str:
    """Read the name of a genome build, such as ``hg19`` or ``37``.

    Returns
    -------
    {"GRCh37", "GRCh38"}

    Raises
    ------
    TableError
        It is another one; `where` names the place.
    """
    plain = re.sub(r"(\.p[0-9]+)$", "", text.strip().lower())
    if plain not in _BUILDS:
        raise TableError(where, f"the genome build {text!r} isn't known", f"use {GRCH37} or {GRCH38}, lifted over")
    return _BUILDS[plain]


def one_build(builds: Mapping[str, str | None]) -> str | None:
    """Return the build that all sources agree on, None where none of them names any.

    Parameters
    ----------
    builds : mapping of str to str or None
        Build by source (a file's name); None where it doesn't say.

    Raises
    ------
    TableError
        Two sources differ.
    """
    known = {source: build for source, build in builds.items() if build is not None}
    first = next(iter(known), None)
    for source, build in known.items():
        if first is not None and build != known[first]:
            fault = f"is on {build}, and {first} on {known[first]}"
            raise TableError(source, fault, "lift one of them over, so that all are on one build")
    return known[first] if first is not None else None


def build_of_lengths(lengths_bp: Mapping[str, int]) -> str | None:
    """Tell the build by the lengths of chromosomes in a header; None where they fit neither."""
    named = {chromosome_named(name): length for name, length in lengths_bp.items()}
    for build, lengths in LENGTHS_BP.items():
        common = [name for name in lengths if name in named]
        if common and all(named[name] == lengths[name] for name in common):
            return build
    return None


def chromosome_named(text: str) -> str:
    """Return a chromosome's name as it is written here: no ``chr``, X, Y and MT by letter.

    Examples
    --------
    >>> chromosome_named("chr1"), chromosome_named("23"), chromosome_named("chrM")
    ('1', 'X', 'MT')
    """
    plain = re.sub(r"^chr", "", text.strip(), flags=re.IGNORECASE)
    plain = plain.upper() if len(plain) <= 2 else plain
    return _NUMBERED.get(plain, plain)


def mutation_name(chromosome: str, position: int, ref: str, alt: str) -> str:
    """Return the name a mutation has in every table: ``1 158815481 C T``."""
    return f"{chromosome_named(chromosome)} {position} {ref.upper()} {alt.upper()}"


def normal_name(text: str) -> str:
    """Write a mutation's name in one way where it holds its place, else leave it as it is.

    Examples
    --------
    >>> normal_name("chr1:158815481:c:t"), normal_name("1_158815481_C_T"), normal_name("TP53 R249S")
    ('1 158815481 C T', '1 158815481 C T', 'TP53 R249S')
    """
    found = _MUTATION.fullmatch(text.strip())
    return mutation_name(found[1], int(found[2]), found[3], found[4]) if found else text.strip()


def site_of(mutation: str) -> Site | None:
    """Return where a mutation of a normal name lies; None for other names."""
    parts = mutation.split(" ")
    if len(parts) != 4 or not parts[1].isdigit():
        return None
    return Site(parts[0], int(parts[1]))


def check_sites(mutations: Iterable[str], build: str | None, where: str) -> None:
    """Check that every mutation lies on its chromosome.

    Raises
    ------
    TableError
        One lies beyond the end: the build is another than stated.
    """
    if build is None:
        return
    lengths = LENGTHS_BP[build]
    for mutation in mutations:
        site = site_of(mutation)
        if site and not 1 <= site.position <= lengths.get(site.chromosome, site.position):
            fault = f"{mutation} lies beyond chromosome {site.chromosome} of {build}"
            raise TableError(where, fault, "check which genome build the positions are on")
