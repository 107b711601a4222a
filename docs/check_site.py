"""Hold the built site to its promises: every internal link leads somewhere, and nothing is loaded from elsewhere."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "video": "src"}


class Page(HTMLParser):
    """Ids, links and loaded files of one page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what this tag is, leads to or loads."""
        of = {name: value or "" for name, value in attrs}
        self.ids.update(of[name] for name in ("id", "name") if name in of)
        if tag == "a" and "href" in of:
            self.links.append(of["href"])
        if (
            tag in _LOADS
            and _LOADS[tag] in of
            and of.get("rel") not in ("canonical", "index", "search", "next", "prev")
        ):
            self.loads.append(of[_LOADS[tag]])


def faults(site: Path) -> list[str]:
    """Return a line for each link without a target and each file loaded from another server."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        pages[path.resolve()] = page = Page()
        page.feed(path.read_text(encoding="utf-8"))
    return [line for path, page in pages.items() for line in _faults_of(path, page, pages, site.resolve())]


def _faults_of(path: Path, page: Page, pages: dict[Path, Page], site: Path) -> list[str]:
    where = path.relative_to(site)
    found = [f"{where}: loads {url}" for url in page.loads if urlsplit(url).netloc]
    for url in [*page.links, *(url for url in page.loads if not url.startswith("data:"))]:
        parts = urlsplit(url)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file():
            found.append(f"{where}: {url} leads nowhere")
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
            found.append(f"{where}: {url} has no such place")
    return found


if __name__ == "__main__":
    lines = faults(Path(sys.argv[1]))
    print("\n".join(lines) or f"every link holds, nothing is loaded from elsewhere: {sys.argv[1]}")  # noqa: T201
    sys.exit(bool(lines))
