"""A diagnosis for people, in at most 80 columns."""

from __future__ import annotations

import os
from collections.abc import Iterator

from samdeploy.doctor.findings import BundleState, Diagnosis, Machine
from samdeploy.terminal.tables import entries, table
from samdeploy.terminal.wording import engine_name, megabytes

_STRANGERS = 3


def diagnosis_tables(diagnosis: Diagnosis) -> str:
    """Machine, runtimes and extras, the bundle, and the problems with their cures at the end."""
    machine, bundle, problems = diagnosis.machine, diagnosis.bundle, diagnosis.problems
    blocks = [entries(_machine(machine)), _runtimes(machine)]
    if bundle is None:
        blocks += [_extras(machine)] if machine.extras else []
    else:
        blocks.append(entries(_bundle(bundle)))
        blocks += [_engines(bundle)] if bundle.engines else []
    heading = {0: "no problems", 1: "1 problem:"}.get(len(problems), f"{len(problems)} problems:")
    numbered = entries((f"{number}.", text) for number, text in enumerate(problems, 1))
    return "\n\n".join(blocks) + f"\n\n{heading}" + (f"\n{numbered}" if problems else "")


def _machine(found: Machine) -> Iterator[tuple[str, str]]:
    memory = "" if found.memory_gib is None else f", {found.memory_gib:.1f} GiB"
    few = f"; this process may use {found.cores}" if found.cores < (os.cpu_count() or 1) else ""
    yield "machine", f"{found.processor}{memory}{few}"
    yield "GPU", found.gpu or f"none: {found.no_gpu}"
    yield "samdeploy", f"{found.samdeploy}, Python {found.python}"
    yield "cache", found.cache


def _runtimes(found: Machine) -> str:
    rows = []
    for runtime in found.runtimes:
        versions = ", ".join(f"{name} {version}" for name, version in runtime.packages.items())
        words = f"{versions}: {runtime.reason or 'ready'}" if versions else runtime.reason
        if runtime.reason and "tensorrt-rtx-cu13" in runtime.packages:
            words += "; builds engines for other machines"
        rows.append((runtime.name, words))
    return table(("<runtime", "<here"), rows)


def _extras(found: Machine) -> str:
    rows = []
    for extra in found.extras:
        lacking = ", ".join((*extra.missing, *extra.outdated))
        rows.append((extra.name, f"lacks {lacking}: pip install 'samdeploy[{extra.name}]'" if lacking else "ready"))
    return table(("<extra", "<here"), rows)


def _bundle(found: BundleState) -> Iterator[tuple[str, str]]:
    yield "bundle", found.path
    if not found.summary:
        return
    good = found.files - len(found.damaged)
    yield "network", found.summary
    yield "files", f"{good} of {found.files} are as the manifest states, {megabytes(found.size)} MB"
    if found.strangers:
        few = ", ".join(found.strangers[:_STRANGERS]) + (", ..." if len(found.strangers) > _STRANGERS else "")
        yield "beside them", f"{few}: not in the manifest, read by no runtime"
    yield "evaluation", found.evaluation or f"none for this bundle: samdeploy eval {found.path}"


def _engines(found: BundleState) -> str:
    rows = [
        (
            engine_name(row.backend, row.precision, row.device),
            row.reason or f"answers as its model did; opened in {row.open_s:.2f} s",
        )
        for row in found.engines
    ]
    return table(("<engine", "<here"), rows)
