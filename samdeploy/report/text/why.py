"""`Why` for people, in at most 80 columns."""

from __future__ import annotations

import textwrap

from samdeploy.evaluate.why.explain import Why
from samdeploy.evaluate.why.tensors import TensorRow

_HEADER = f"{'tensor':<24} {'error':>8} {'inputs':>8} {'channels':>9} {'largest':>10} {'bits':>5}"


def why_table(why: Why) -> str:
    """The tensors around the first that departs, then what is likely behind it."""
    engine = f"{why.backend} {why.precision}"
    if not why.rows:
        return "\n".join(textwrap.wrap(f"why {engine} departs {why.cause}", 80, subsequent_indent="  "))
    if why.first is None:
        verdict = f"no tensor of {engine} departs from the network"
    else:
        verdict = f"the first tensor of {engine} that departs from the network is {why.name}"
    lines = textwrap.wrap(f"{verdict}, on {why.n_images} images:", 80)
    lines += [_HEADER, "-" * len(_HEADER)]
    lines += [_row(row, is_first=row.name == why.name) for row in why.around()]
    explanation = (
        f"error: largest difference as a share of the tensor's range in its picture, at most {why.tolerance:.0e} "
        "expected; inputs: the same of what it is computed from; channels: with such an error; bits: how often the "
        "largest value can double before it leaves FP16"
    )
    lines += textwrap.wrap(explanation, 80)
    lines += textwrap.wrap(f"likely cause: {why.cause}", 80, subsequent_indent="  ")
    return "\n".join(lines)


def _row(row: TensorRow, *, is_first: bool) -> str:
    error = f"{row.error:8.1e}" if not row.not_finite else "  no num."
    channels = f"{row.channels_off}/{row.channels}" if row.error else "-"
    bits = "-" if row.bits is None else f"{row.bits:.1f}"
    text = f"{row.name:<24} {error} {row.inputs_error:8.1e} {channels:>9} {row.max_abs:10.4g} {bits:>5}"
    return f"{text} <" if is_first else text
