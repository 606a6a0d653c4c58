"""docs/zoo.md, from the rows of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from architectures import GROUPS

HEAD = (
    "| architecture | parameters | px | export | FP32 | INT8 | FP16 plan | kept in FP32 | maps |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n"
)


def write_table(path: Path, source: Path, report: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in report["rows"]}
    whole = sum("failed" not in row for row in rows.values())
    listed = sum(map(len, GROUPS.values()))
    evaluated = sum("eval" in row["stages"] for row in rows.values())
    tools = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version)
    left = listed - len(rows)
    waiting = f" {left} more, listed in `benchmarks/zoo/architectures.py`, were not run." if left else ""
    text = [
        "# Architectures\n\n"
        f"{whole} of {len(rows)} architectures passed every step: export; PyTorch's answers at batch sizes 1, 3 and 7 "
        "in ONNX Runtime and OpenVINO; quantisation to INT8; a TensorRT-RTX build in FP16 for SM86; and the same "
        f"answers to the last bit in C++. {evaluated} of them also went through `samdeploy eval`. Weights are "
        f"random (seed {report['seed']}): the table shows that a design works, not its accuracy."
        f"{waiting}\n\n"
        "- export: seconds for graphs, checks, maps and the FP16 plan, on a machine busy with other work\n"
        "- FP32: largest difference of a logit from PyTorch's, in either runtime, as a share of the range of the "
        "image's logits\n"
        "- INT8: the same in ONNX Runtime, with every layer but the head in INT8; above 20 % an export refuses it\n"
        "- FP16 plan: size of the TensorRT-RTX engine, which was built but not run\n"
        "- kept in FP32: parts of the FP16 graph (a block or more each) that stay in FP32\n"
        "- maps: whether there are class activation maps\n\n"
        f"Machine: {report['machine']}. {tools}. `{report['command']}`, {report['date']}; all rows are in "
        f"`{source.name}`.\n"
    ]
    for title, names in GROUPS.items():
        found = [rows[name] for name in names if name in rows]
        text.append(f"\n## {title}\n\n{HEAD}{''.join(map(_line, found))}")
        text += [f"\n`{row['name']}` is refused: {_short(row['reason'])}\n" for row in found if "failed" in row]
    reasons: dict[str, list[str]] = {}
    for row in rows.values():
        if "failed" not in row and not row["maps"]:
            reasons.setdefault(_kind(row["no_maps"]), []).append(f"`{row['name']}`")
    text.append("\n## Networks without maps, and why\n\n")
    text += [f"- {reason}: {', '.join(names)}\n" for reason, names in reasons.items()]
    path.write_text("".join(text))


def _line(row: dict[str, Any]) -> str:
    name = f"`{row['name']}`"
    if "failed" in row:
        return f"| {name} | | | | | | | | refused |\n"
    fp32 = max(row["differences"].values())
    cells = [
        name,
        f"{row['parameters'] / 1e6:.1f} M",
        str(row["px"]),
        f"{row['stages']['export']:.0f} s",
        f"{fp32:.0e}",
        f"{100 * row['int8_error']:.1f} %",
        f"{row['plan_bytes'] / 2**20:.1f} MiB",
        str(len(row["fp16_kept"])),
        "yes" if row["maps"] else "no",
    ]
    return f"| {' | '.join(cells)} |\n"


def _kind(reason: str) -> str:
    """A reason without the name of the node, so that equal ones stand together."""
    return reason.partition(" (")[0] + (reason.rpartition(")")[2] if ")" in reason else "")


def _short(reason: str) -> str:
    return reason.strip().rpartition("\n")[2]
