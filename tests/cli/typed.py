"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable

Inside = Callable[..., tuple[int, str, str]]

# A network that learned from a tenth of the digits, at half their usual size, for one epoch: poor, but as good as any
# to be deployed.
_SETTINGS = ("training.epochs=1", "data.val_fraction=0.9", "training.device=cpu", "training.precision=fp32")
_SETTINGS += ("image.height=16", "image.width=16")
TINY = tuple(argument for setting in _SETTINGS for argument in ("--set", setting))


def assert_one_line(text: str, beginning: str) -> None:
    """Notes on what was taken may come first; then one line, which says `beginning`."""
    lines = [line for line in text.splitlines() if not line.startswith("taking the newest")]
    assert len(lines) == 1, text
    assert lines[0].startswith(f"samdeploy: {beginning}"), lines[0]
