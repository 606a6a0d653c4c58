"""The documentation site: it builds without a warning, links lead somewhere, and no page asks another server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from docs.builder import commands, errors
from docs.builder.build import DOCS, FROM_ROOT, GENERATED, build, gather, with_site_links
from docs.builder.links import broken_links, outside_requests
from samdeploy.cli import app
from samdeploy.errors import SamdeployError


def test_the_site_builds_strictly_and_asks_nobody(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="pip install 'samdeploy[docs]'")
    site = build(tmp_path)
    pages = {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
    written = {page.relative_to(DOCS).with_suffix(".html").as_posix() for page in DOCS.rglob("*.md")}
    assert written <= pages
    assert "Classify one image." in (site / "reference" / "python.html").read_text()


def test_every_page_is_in_the_navigation() -> None:
    text = (DOCS / "builder" / "zensical.toml").read_text()
    pages = (
        {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} | set(GENERATED) | set(FROM_ROOT.values())
    )
    assert {page for page in pages if f'"{page}"' not in text} == set()


def test_every_option_is_in_the_reference() -> None:
    page, found = commands.page(), 0
    for name, command in typer.main.get_command(app).commands.items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        options = [option for part in command.params for option in part.opts if option.startswith("--")]
        assert not [option for option in options if option not in section], name
        found += len(options)
    assert found > 100
    assert "runs/reproduce-&lt;recipe&gt; if left out" in page  # no tag of HTML


def test_lists_follow_an_empty_line_or_a_heading(tmp_path: Path) -> None:
    """Where GitHub sees a list after a line of text, the site goes on with the paragraph."""
    gather(tmp_path / "pages")
    for page in (tmp_path / "pages").rglob("*.md"):
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        assert re.findall(r"^(?!- |\d+\. |[# |]).+\n(?:- |\d+\. ).*", text, re.M) == [], page.name


def test_every_error_has_a_cause_and_a_cure() -> None:
    page = errors.page()
    for kind in (SamdeployError, *_below(SamdeployError)):
        cause, cure = errors.cause_and_cure(kind)
        assert f"| `{kind.__name__}` | {kind.exit_code} | {cause} | {cure} |" in page


def _below(kind: type[SamdeployError]) -> list[type[SamdeployError]]:
    found = [below for below in kind.__subclasses__() if below.__module__ == "samdeploy.errors"]
    return [*found, *(deeper for below in found for deeper in _below(below))]


def test_broken_links_and_requests_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<h1 id="here">x</h1><a href="#here">a</a><a href="#there">b</a><a href="gone.html">c</a>'
        '<a href="https://example.com">d</a><script src="https://example.com/x.js"></script><img src="gone.png">'
    )
    assert [fault.split(" ")[1] for fault in broken_links(page, tmp_path)] == ["#there", "gone.html", "gone.png"]
    assert list(outside_requests(page, tmp_path)) == ["page.html: asks https://example.com/x.js"]


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("[figures](../docs/figures.md#gpu)", "[figures](../docs/figures.md#gpu)"),
        ("[examples/deploy](../examples/deploy)", "examples/deploy"),
        ("[programs](../examples)", "programs (`examples`)"),
        ("[the design](../DESIGN.md)", "[the design](design.md)"),
        ("[errors](../samdeploy/errors.py)", "[errors](reference/errors.md)"),
        ("```sh\n[x](../examples)\n```", "```sh\n[x](../examples)\n```"),
    ],
)
def test_links_fit_the_site(link: str, shown: str) -> None:
    assert with_site_links(link, DOCS / "page.md") == shown
