"""The tensors of one network, found in a state dict that may hold more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch

from samdeploy.errors import WeightsError
from samdeploy.models.checkpoint import is_averaged
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
    prefix = _best(names.values(), wanted, source)
    if prefix:
        notes.append(f"prefix {prefix!r} removed")
    below = [(key, name.removeprefix(prefix)) for key, name in names.items() if name.startswith(prefix)]
    _check_distinct(below, wanted, source)
    own = {name: state[key] for key, name in below}
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


def _best(names: Iterable[str], wanted: Collection[str], source: str) -> str:
    """The prefix below which most of a network's names are; of several such networks the averaged one.

    Raises:
        WeightsError: several networks fit.
    """
    found: dict[str, set[str]] = {}
    for name in names:
        for start in _starts(name):
            if name[start:] in wanted:
                found.setdefault(name[:start], set()).add(name)
    # A few equal names, such as "bn1.weight", tell nothing.
    enough = len(wanted) / 2
    best = max(found, key=lambda prefix: len(found[prefix]), default="")
    if len(found.get(best, ())) <= enough:
        return ""
    several = [best, *(prefix for prefix in found if len(found[prefix] - found[best]) > enough)]
    averaged = [prefix for prefix in several if is_averaged(prefix)]
    if len(several) > 1 and len(averaged) != 1:
        raise WeightsError(
            f"{source}: holds several networks, below {several[0]!r} and {several[1]!r}; save the state dict of one of "
            "them"
        )
    return (averaged or several)[0]


def _check_distinct(pairs: Iterable[tuple[str, str]], wanted: Collection[str], source: str) -> None:
    """Refuse two tensors that are one of the network's without the names of wrappers."""
    seen: dict[str, str] = {}
    for key, name in pairs:
        if name in seen and name in wanted:
            raise WeightsError(
                f"{source}: holds several networks, {seen[name]!r} and {key!r} are the same tensor of each; save the "
                "state dict of one of them"
            )
        seen[name] = key
