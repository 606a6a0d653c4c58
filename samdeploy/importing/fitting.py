"""The tensors of one network, found in a state dict that may hold more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import torch

from samdeploy.errors import WeightsError
from samdeploy.models.weights import some

# What DataParallel and torch.compile put into names, also of a part of a network: "features.module.0.weight".
_WRAPPERS = frozenset({"module", "_orig_mod"})
_COUNTER = "num_batches_tracked"


def fitting(
    state: Mapping[str, torch.Tensor], wanted: Collection[str], source: str
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors below the prefix where most of a network's names are, and what was done, for people.

    What lies elsewhere (a loss, a discriminator) is left out, and so are single numbers that the network does not
    have (counters of profilers).  Other tensors within the network stay: it would be another one without them.

    Args:
        wanted: names of the network's tensors.
        source: of the weights, for errors.

    Raises:
        WeightsError: several networks fit.
    """
    notes = []
    names = {key: key if key in wanted else _unwrapped(key) for key in state}
    if any(key != name for key, name in names.items()):
        notes.append("names of wrappers removed")
    found = Counter(name[:start] for name in names.values() for start in _starts(name) if name[start:] in wanted)
    # A few equal names, such as "bn1.weight", tell nothing.
    prefix = _best(found, source) if max(found.values(), default=0) > len(wanted) / 2 else ""
    if prefix:
        notes.append(f"prefix {prefix!r} removed")
    own = {name.removeprefix(prefix): state[key] for key, name in names.items() if name.startswith(prefix)}
    taken = {
        name: value for name, value in own.items() if name in wanted or name.endswith(_COUNTER) or value.numel() != 1
    }
    left = [key for key, name in names.items() if name.removeprefix(prefix) not in taken or not name.startswith(prefix)]
    if left:
        notes.append(f"left {len(left)} that the network does not have: {some(left)}")
    types = {str(value.dtype).removeprefix("torch.") for value in taken.values() if value.is_floating_point()}
    notes += [f"{name} converted to float32" for name in sorted(types - {"float32"})]
    return taken, notes


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _starts(name: str) -> list[int]:
    return [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]


def _best(found: Counter[str], source: str) -> str:
    most = max(found.values(), default=0)
    best = [prefix for prefix, count in found.items() if count == most]
    averaged = [prefix for prefix in best if "ema" in prefix]
    if len(best) > 1 and len(averaged) != 1:
        raise WeightsError(
            f"{source}: holds several networks, below {best[0]!r} and {best[1]!r}; save the state dict of one of them"
        )
    return (averaged or best or [""])[0]
