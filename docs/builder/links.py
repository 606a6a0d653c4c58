"""What a built page refers to: links that must lead somewhere, and other servers, which it must not ask."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Elements whose address a browser fetches by itself, and the attribute that holds it.
_FETCHED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
# Kinds of <link> that are fetched; "canonical" and "next" are not.
_FETCHED_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload"}


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in _FETCHED and _FETCHED[tag] in values:
            self.fetched.append(values[_FETCHED[tag]])
        if tag == "link" and _FETCHED_LINKS & set(values.get("rel", "").split()):
            self.fetched.append(values.get("href", ""))


@cache
def _references(page: Path) -> _References:
    found = _References()
    found.feed(page.read_text(encoding="utf-8"))
    return found


def broken_links(page: Path, site: Path) -> Iterator[str]:
    """Links and images of `page`, as "page: link", whose file or anchor is not in the folder `site`."""
    found = _references(page)
    for link in dict.fromkeys(found.links + found.fetched):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if target.is_dir():
            target /= "index.html"
        is_page = target.suffix == ".html"
        anchor = unquote(parts.fragment)
        lost = anchor and is_page and target.is_file() and anchor not in _references(target).anchors
        if not target.is_file() or lost:
            yield f"{page.relative_to(site)}: {link} leads nowhere"


def outside_requests(page: Path, site: Path) -> Iterator[str]:
    """What a browser would fetch from another server while it shows `page`."""
    for address in _references(page).fetched:
        parts = urlsplit(address)
        if parts.netloc or parts.scheme not in ("", "data"):
            yield f"{page.relative_to(site)}: asks {address}"
