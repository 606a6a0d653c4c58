"""Gather the pages, write the reference from the code, and build the site.

    python -m docs.builder.build OUT

OUT/pages gets what is in docs/ and the generated pages, OUT/site the site.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from docs.builder import commands, errors, headers, schemas
from docs.builder.links import broken_links, outside_requests

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

# Pages of the repository's root, under the names that they have in the site.
FROM_ROOT = {"CHANGELOG.md": "changelog.md", "DESIGN.md": "design.md"}
GENERATED = {
    "reference/commands.md": commands.page,
    "reference/errors.md": errors.page,
    "reference/cpp.md": headers.page,
    "reference/schemas.md": schemas.page,
}
# What a generated page is made from: pages link to that, so that links lead somewhere in the repository, too.
SOURCES = {
    "samdeploy/cli": "reference/commands.md",
    "samdeploy/errors.py": "reference/errors.md",
    "cpp/include": "reference/cpp.md",
}
# What the theme asks another server for: it lets the search run on pages that are opened as files.
_SHIM = re.compile(r"<script[^>]*iframe-worker[^>]*>\s*</script>")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```.*?^```)", re.M | re.S)


def gather(pages: Path) -> None:
    """Copy docs/ to `pages`, with links that fit the site, and add the generated pages."""
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("__pycache__", "*.py", "zensical.toml"))
    for page in sorted(pages.rglob("*.md")):
        source = DOCS / page.relative_to(pages)
        page.write_text(with_site_links(source.read_text(encoding="utf-8"), source), encoding="utf-8")
    for name, target in FROM_ROOT.items():
        text = with_site_links((ROOT / name).read_text(encoding="utf-8"), ROOT / name)
        (pages / target).write_text(text, encoding="utf-8")
    for name, made in GENERATED.items():
        (pages / name).parent.mkdir(parents=True, exist_ok=True)
        (pages / name).write_text(made(), encoding="utf-8")
    schemas.copy_to(pages / "reference")


def with_site_links(text: str, source: Path) -> str:
    """`text` of the page `source`, whose links to files outside docs/ become the files' names.

    Pages of the root lie beside the others in the site, so that links to `docs/x.md` become links to `x.md`.
    """

    def replaced(match: re.Match[str]) -> str:
        image, label, target = match.groups()
        if "://" in target or target.startswith("#"):
            return match[0]
        path, mark, anchor = target.partition("#")
        file = (source.parent / path).resolve()
        if file.is_relative_to(DOCS) and not file.is_dir():
            return match[0] if source.parent != ROOT else f"{image}[{label}]({file.relative_to(DOCS)}{mark}{anchor})"
        name = file.relative_to(ROOT).as_posix()
        if page := {**FROM_ROOT, **SOURCES}.get(name):
            up = "../" * len(source.relative_to(DOCS).parents[:-1]) if source.is_relative_to(DOCS) else ""
            return f"{image}[{label}]({up}{page}{mark}{anchor})"
        return label if name in label else f"{label} (`{name}`)"

    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(replaced, part) for part in parts)


def without_requests(site: Path) -> None:
    """Take the search's shim out of every page; drop 404.html, which needs a server's root."""
    (site / "404.html").unlink(missing_ok=True)
    for page in site.rglob("*.html"):
        page.write_text(_SHIM.sub("", page.read_text(encoding="utf-8")), encoding="utf-8")


def faults(site: Path) -> Iterator[str]:
    """What must not be in a built site: links that lead nowhere, and requests to other servers."""
    for page in sorted(site.rglob("*.html")):
        yield from broken_links(page, site)
        yield from outside_requests(page, site)


def build(out: Path) -> Path:
    """Build the site below `out`, anew; returns its folder.

    Raises:
        SystemExit: the builder warned, a link leads nowhere, or a page asks another server for something.
    """
    for name in ("pages", "site"):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    gather(out / "pages")
    text = (DOCS / "builder" / "zensical.toml").read_text(encoding="utf-8")
    (out / "zensical.toml").write_text(text.replace('paths = ["../.."]', f"paths = [{str(ROOT)!r}]"), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=out, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    without_requests(out / "site")
    found = list(faults(out / "site"))
    if found:
        raise SystemExit("\n".join(found))
    return out / "site"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    print(build(Path(sys.argv[1])) / "index.html")
