"""The accuracy that the user asks of every engine: `eval --min-top1` and `--min-class-recall`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from samdeploy.errors import InputError
from samdeploy.evaluate.accuracy.compare import Comparison

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Floors:
    """What an engine must reach on the test images, whatever the trained network reaches; None asks for nothing.

    Attributes:
        min_top1: in percent.
        min_class_recall: in percent, of each class; a class without test images does not reach it.

    Raises:
        InputError: not a percentage.
    """

    min_top1: float | None = None
    min_class_recall: float | None = None

    def __post_init__(self) -> None:
        for option, value in (("--min-top1", self.min_top1), ("--min-class-recall", self.min_class_recall)):
            if value is not None and not 1 < value <= 100:
                hint = f"; for {100 * value:g} %: {option} {100 * value:g}" if 0 < value <= 1 else ""
                raise InputError(f"{option}: {value:g} found, a percentage above 1 and at most 100 expected{hint}")

    @property
    def asked(self) -> bool:
        """Whether there is any."""
        return self.min_top1 is not None or self.min_class_recall is not None

    def missed(self, found: Comparison, class_names: Sequence[str]) -> str:
        """Which of them an engine does not reach, with its figures; "" if it reaches all."""
        texts = []
        if self.min_top1 is not None and found.top1 < self.min_top1:
            texts.append(f"top-1 {found.top1:.2f} % is below --min-top1 {self.min_top1:g}")
        if self.min_class_recall is not None:
            recalls = {class_names[row.index]: row.top1 for row in found.classes}
            low = sorted((recall, name) for name, recall in recalls.items() if recall < self.min_class_recall)
            words = [f"{name!r} {recall:.2f} %" for recall, name in low]
            words += [f"{name!r} without a test image" for name in class_names if name not in recalls]
            if words:
                more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
                text = f"recall of {', '.join(words[:_SHOWN])}{more} is below --min-class-recall"
                texts.append(f"{text} {self.min_class_recall:g}")
        return "; ".join(texts)


NO_FLOORS = Floors()
