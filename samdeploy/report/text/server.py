"""What `bench --url` found, in at most 80 columns."""

from __future__ import annotations

from samdeploy.bench.server import ServerBench
from samdeploy.terminal.tables import entries, table
from samdeploy.terminal.wording import milliseconds, rate

_COLUMNS = (">clients", ">answers/s", ">p50 ms", ">p95 ms", ">p99 ms", ">answers", ">failed", "<")


def server_tables(found: ServerBench) -> str:
    """The load, and whether the answers are the bundle's."""
    rows = [
        (
            point.clients, rate(point.rate),
            *(milliseconds(ms if point.answers else None) for ms in (point.p50_ms, point.p95_ms, point.p99_ms)),
            point.answers, point.failed, "" if point.settled else "unsettled",
        )
        for point in found.points
    ]  # fmt: skip
    verdict = "as the bundle's" if found.difference <= found.allowed else "NOT the bundle's"
    allowed = f"{found.allowed:.0e} allowed for {found.precision}"
    lines = [
        ("server", f"{found.about.get('name', '?')} {found.about.get('version', '')}, {found.url}"),
        ("answers", f"{verdict}: golden logits within {found.difference:.1e} of their range, {allowed}"),
    ]
    if not found.precision_known:
        stricter = "" if found.precision == "fp32" else "; --precision fp32 is stricter"
        lines.append(("precision", f"{found.precision}, the bundle's coarsest, as the server names none{stricter}"))
    if found.statuses:
        lines.append(("failed", ", ".join(f"{count} x {name}" for name, count in found.statuses.items())))
    return f"{table(_COLUMNS, rows)}\n\n{entries(lines)}"
