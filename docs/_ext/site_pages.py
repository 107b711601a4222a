"""What the site takes from the installed package: `--help` of every command, modules, SOUP, requirements and tests.

A page asks for it by a comment on a line of its own, such as ``<!-- commands -->`` or
``<!-- modules: ctc_imaging.assay -->``, so that every page is also readable as it stands.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
HELP_COLUMNS = 88
_ASKED = re.compile(r"^<!-- (commands|modules|soup|requirements|file)(?:: (.+?))? -->$", re.MULTILINE)
_OUTSIDE = {
    "../models/default/CARD.md": "reference/model-card-default.md",
    "../models/nuclei/CARD.md": "reference/model-card-nuclei.md",
    "../benchmarks/joint_model_coverage.md": "reference/joint-model-coverage.md",
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Hook in; called by Sphinx."""
    app.connect("source-read", _fill_in)
    app.connect("doctree-read", _leave_words)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put what a page asks for into it, and point links out of docs/ to the pages that show the same files."""
    text = source[0]
    for outside, page in _OUTSIDE.items():
        text = text.replace(f"]({outside})", f"]({page})")
    source[0] = _ASKED.sub(lambda found: PARTS[found[1]](found[2] or ""), text)


def _leave_words(app: Sphinx, doctree: nodes.document) -> None:
    """Make no links of a docstring's plain words: `shape` in a type isn't the attribute of some class."""
    for link in list(doctree.findall(addnodes.pending_xref)):
        if link.get("refdomain") == "py" and link.get("reftarget", "").islower() and "." not in link["reftarget"]:
            link.replace_self(link.children)


# Commands


def command_tree() -> Iterator[tuple[list[str], Any]]:
    """Yield each command of the installed `ctc-imaging` with the words that call it, groups before their own."""
    import typer

    from ctc_imaging.cli.app import make_app

    yield from _below(["ctc-imaging"], typer.main.get_command(make_app()))


def _below(words: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
    yield words, command
    for name, further in getattr(command, "commands", {}).items():
        yield from _below([*words, name], further)


def help_text(words: list[str], command: Any) -> str:
    """Return what `--help` prints, at a width of `HELP_COLUMNS`."""
    context = command.context_class(
        command, info_name=" ".join(words), terminal_width=HELP_COLUMNS, max_content_width=HELP_COLUMNS
    )
    return command.get_help(context)


def _commands(_: str) -> str:
    parts = []
    for words, command in command_tree():
        level = "##" if len(words) < 3 else "###"
        title = " ".join(words) if len(words) == 1 else " ".join(words[1:])
        parts.append(f"{level} {title}\n\n```text\n{help_text(words, command).rstrip()}\n```\n")
    return "\n".join(parts)


# Modules


def modules_of(package: str) -> list[str]:
    """Return the public modules of a package, all levels; of ``NAME.*`` just those right in it that are no packages."""
    bare = package.removesuffix(".*")
    found = import_module(bare)
    if not hasattr(found, "__path__"):
        return [bare]
    walk = pkgutil.iter_modules if package.endswith(".*") else pkgutil.walk_packages
    names = [
        module.name
        for module in walk(found.__path__, f"{bare}.")
        if not (package.endswith(".*") and module.ispkg) and not re.search(r"\._", module.name)
    ]
    return ([] if package.endswith(".*") else [bare]) + sorted(names)


def _modules(packages: str) -> str:
    names = [name for package in packages.split(", ") for name in modules_of(package)]
    return "\n".join(f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n" for name in names)


# Files of the repository's top


def _file(name: str) -> str:
    """Return a file as a page of docs/reference, its links turned to the pages that show the same."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for shown, page in {"SECURITY.md": "security.md", "CHANGELOG.md": "changes.md"}.items():
        text = text.replace(f"]({shown})", f"]({page})")
    return text.replace("](docs/", "](../")


# SOUP


def _soup(_: str) -> str:
    rows = ["| Name | Version | Licence | Asked for by | What it is |", "|---|---|---|---|---|"]
    asked_by = _asked_by()
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        pinned = line.partition("#")[0].strip()
        if not pinned:
            continue
        name, _, version = pinned.partition("==")
        licence, summary = _known_of(name)
        rows.append(f"| {name} | {version} | {licence} | {asked_by.get(_plain(name), '')} | {summary} |")
    return "\n".join(rows)


def _known_of(name: str) -> tuple[str, str]:
    """Return licence and summary as the installed package states them."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "not installed where this page was built", ""
    classified = [
        value.rpartition(" :: ")[2]
        for value in about.get_all("Classifier") or []
        if value.startswith("License ::") and not value.endswith("OSI Approved")
    ]
    stated = about.get("License-Expression") or ", ".join(classified) or _first_line(about.get("License"))
    return _cell(stated or "not stated in its metadata"), _cell(about.get("Summary") or "")


def _asked_by() -> dict[str, str]:
    """Return, for each direct dependency, ``always`` or the extras that ask for it."""
    found: dict[str, list[str]] = {}
    for requirement in metadata.requires("ctc-imaging") or []:
        name = _plain(re.match(r"[\w.-]+", requirement)[0])  # type: ignore[index]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        found.setdefault(name, []).append(f"`{extra[1]}`" if extra else "always")
    return {name: ", ".join(dict.fromkeys(by)) for name, by in found.items()}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


# Requirements


def _requirements(_: str) -> str:
    parts = []
    for group in yaml.safe_load((ROOT / "docs" / "requirements.yaml").read_text(encoding="utf-8")):
        rows = [f"## {group['group']}", "", "| | Requirement | Tests |", "|---|---|---|"]
        for row in group["requirements"]:
            tests = "<br>".join(f"`{test}`" for test in row["tests"])
            rows.append(f"| {row['id']} | {_cell(row['text'])} | {tests} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


PARTS: dict[str, Callable[[str], str]] = {
    "commands": _commands,
    "modules": _modules,
    "soup": _soup,
    "requirements": _requirements,
    "file": _file,
}
