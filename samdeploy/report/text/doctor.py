"""A diagnosis for people, in at most 80 columns."""

from __future__ import annotations

import os
import textwrap

from samdeploy.doctor.findings import BundleState, Diagnosis, Machine

_WIDTH = 80
_MIB = 2**20


def table(diagnosis: Diagnosis) -> str:
    """Machine, runtimes and extras, the bundle, and the problems with their cures at the end."""
    lines = _machine(diagnosis.machine, with_extras=diagnosis.bundle is None)
    if diagnosis.bundle is not None:
        lines += ["", *_bundle(diagnosis.bundle)]
    lines.append("")
    problems = diagnosis.problems
    lines.append({0: "no problems", 1: "1 problem:"}.get(len(problems), f"{len(problems)} problems:"))
    for number, text in enumerate(problems, 1):
        lines += textwrap.wrap(text, _WIDTH, initial_indent=f"{number}. ", subsequent_indent="   ")
    return "\n".join(lines)


def _machine(found: Machine, *, with_extras: bool) -> list[str]:
    memory = "" if found.memory_gib is None else f", {found.memory_gib:.1f} GiB"
    few = f"; this process may use {found.cores}" if found.cores < (os.cpu_count() or 1) else ""
    lines = [
        *_entry("machine", f"{found.processor}{memory}{few}"),
        *_entry("GPU", found.gpu or f"none: {found.no_gpu}"),
        *_entry("samdeploy", f"{found.samdeploy}, Python {found.python}"),
        *_entry("cache", found.cache),
        "",
        f"{'runtime':<17}here",
        "-" * _WIDTH,
    ]
    for runtime in found.runtimes:
        versions = ", ".join(f"{name} {version}" for name, version in runtime.packages.items())
        words = f"{versions}: {runtime.reason or 'ready'}" if versions else runtime.reason
        if runtime.reason and "tensorrt-rtx-cu13" in runtime.packages:
            words += "; builds engines for other machines"
        lines += _entry(runtime.name, words)
    if not with_extras:
        return lines
    if found.extras:
        lines += ["", f"{'extra':<17}here", "-" * _WIDTH]
    for extra in found.extras:
        lacking = ", ".join((*extra.missing, *extra.outdated))
        lines += _entry(extra.name, f"lacks {lacking}: pip install 'samdeploy[{extra.name}]'" if lacking else "ready")
    return lines


def _bundle(found: BundleState) -> list[str]:
    lines = _entry("bundle", found.path)
    if not found.summary:
        return lines
    good = found.files - len(found.damaged)
    lines += _entry("network", found.summary)
    lines += _entry("files", f"{good} of {found.files} are as the manifest states, {found.size / _MIB:.1f} MiB")
    if found.strangers:
        few = ", ".join(found.strangers[:3]) + (", ..." if len(found.strangers) > 3 else "")
        lines += _entry("beside them", f"{few}: not in the manifest, read by no runtime")
    lines += _entry("evaluation", found.evaluation or f"none for this bundle: samdeploy eval {found.path}")
    if found.engines:
        lines += ["", f"{'engine':<17}here", "-" * _WIDTH]
    for engine in found.engines:
        words = engine.reason or f"{engine.device}: answers as its model did; opened in {engine.open_s:.2f} s"
        lines += _entry(f"{engine.backend} {engine.precision}", words)
    return lines


def _entry(name: str, text: str, width: int = 17) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{name:<{width - 1}} ", subsequent_indent=" " * width, break_on_hyphens=False
    )
