"""`Why` for people, in at most 80 columns."""

from __future__ import annotations

from samdeploy.evaluate.why.explain import Why
from samdeploy.terminal.tables import paragraph, table
from samdeploy.terminal.wording import bits, difference, magnitude

_COLUMNS = ("<tensor", ">error", ">inputs", ">channels", ">largest", ">bits", "<")


def why_table(why: Why) -> str:
    """The tensors around the first that departs, then what is likely behind it."""
    engine = f"{why.backend} {why.precision}"
    if not why.rows:
        return paragraph(f"why {engine} departs {why.cause}")
    if why.first is None:
        verdict = f"no tensor of {engine} departs from the network"
    else:
        verdict = f"the first tensor of {engine} that departs from the network is {why.name}"
    rows = [
        (
            row.name,
            difference(row.error),
            difference(row.inputs_error),
            f"{row.channels_off}/{row.channels}" if row.error else None,
            magnitude(row.max_abs),
            bits(row.bits),
            "<" if row.name == why.name else "",
        )
        for row in why.around()
    ]
    legend = (
        f"error: largest difference as a share of the tensor's range in its image, at most {why.tolerance:.0e} "
        "expected; inputs: the same of what it is computed from; channels: with such an error; bits: how often the "
        "largest value can double before it leaves FP16"
    )
    return "\n".join(
        [
            paragraph(f"{verdict}, on {why.n_images} images:"),
            table(_COLUMNS, rows),
            paragraph(legend),
            paragraph(f"likely cause: {why.cause}"),
        ]
    )
