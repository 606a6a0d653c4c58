"""The table of a GPU check: 80 columns."""

from __future__ import annotations

from typing import Any

_WIDTH = 80


def table(result: dict[str, Any]) -> str:
    gpu, rows = result["gpu"], result["rows"]
    lines = [f"GPU: {gpu.get('name', 'none: ' + gpu.get('none', ''))}, driver {gpu.get('driver', '-')}"[:_WIDTH]]
    lines += ["", "step                 seconds  status"]
    lines += _wrapped([(f"{s['name']:20s} {s['seconds']:7.1f}  ", s["status"]) for s in result["steps"]])
    inference = [row for row in rows if row["kind"] == "inference"]
    for px in sorted({row["px"] for row in inference}):
        lines += ["", *_inference([row for row in inference if row["px"] == px], px)]
    training = [row for row in rows if row["kind"] == "training"]
    if training:
        lines += ["", "training, images/s     px  batch  network"]
        for row in training:
            value = f"{row['images_per_s']:10.0f}" if row["status"] == "ok" else row["status"][:40]
            lines.append(f"{row['runtime']:16s}{row['px']:9d}{row['batch']:7d}  {row['net']:16s}{value}"[:_WIDTH])
    others = [row for row in rows if row["kind"] in ("export", "session", "graph", "tests")]
    if others:
        lines += ["", "other results"]
        lines += _wrapped([(_title(row), _details(row)) for row in others])
    return "\n".join(lines)


def _inference(rows: list[dict[str, Any]], px: int) -> list[str]:
    batches = sorted({row["batch"] for row in rows if row["batch"]})
    head = f"{px} px, FP16: ms (median)"
    lines = [f"{head:36s}" + "".join(f"{'b' + str(b):>8s}" for b in batches) + "   error"]
    order = list(dict.fromkeys((row["runtime"], row["net"]) for row in rows))
    for runtime, net in order:
        mine = {row["batch"]: row for row in rows if (row["runtime"], row["net"]) == (runtime, net)}
        cells = [f"{mine[b]['ms']['median']:8.3f}" if mine.get(b, {}).get("ms") else f"{'-':>8s}" for b in batches]
        errors = [row["max_diff_of_range"] for row in mine.values() if row["status"] == "ok"]
        lines.append(f"{runtime:19s}{net:17s}{''.join(cells)}" + (f"{max(errors):8.0e}" if errors else ""))
        problems = dict.fromkeys(row["status"] for row in mine.values() if row["status"] != "ok")
        lines += _wrapped([("    ", problem) for problem in problems])
    return lines


def _title(row: dict[str, Any]) -> str:
    names = ("kind", "backend", "engine", "net", "precision", "device", "target", "px")
    return " ".join(str(row[name]) for name in names if name in row) + ": "


def _details(row: dict[str, Any]) -> str:
    shown = ("status", "passed", "failed", "errors", "skipped", "max_diff_of_range", "max_diff_between_batches",
             "top1_same", "images", "state", "note")  # fmt: skip
    return ", ".join(
        str(row[name]) if name == "status" else f"{name} {row[name]:.1e}" if isinstance(row[name], float)
        else f"{name} {row[name]}"
        for name in shown if row.get(name) not in (None, "")
    )  # fmt: skip


def _wrapped(pairs: list[tuple[str, str]]) -> list[str]:
    lines = []
    for title, text in pairs:
        room = _WIDTH - 4
        line = title + text
        lines.append(line[:_WIDTH])
        lines += [f"    {line[i : i + room]}" for i in range(_WIDTH, len(line), room)]
    return lines
