"""The two networks that are compared, and the engine that runs both."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from samdeploy.arrays import Int64Array
from samdeploy.backends import availability, open_session
from samdeploy.backends.names import PREFERENCE
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.path_kind import path_kind
from samdeploy.compare.options import AUTO, CompareOptions
from samdeploy.errors import NEXT_FAULT, BackendUnavailable, InputError
from samdeploy.runs.as_bundle import bundle_of_weights
from samdeploy.runs.locate import bundle_of
from samdeploy.terminal import printable


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two.

    Attributes:
        name: "A" or "B".
        bundle: of the network; of a run that was never exported, its weights alone.
        is_run: whether it is such a run.
    """

    name: str
    bundle: Bundle
    is_run: bool

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes, in its own order."""
        return self.bundle.spec.classes


def open_side(name: str, path: Path) -> Side:
    """A bundle; a run by its bundle, or, if it was never exported, by its weights.

    Raises:
        BundleError: neither, or damaged.
    """
    is_run = path_kind(path) == "run without a bundle"
    return Side(name, bundle_of_weights(path) if is_run else open_bundle(bundle_of(path)), is_run)


def class_places(classes: tuple[str, ...], other: Side) -> Int64Array:
    """Where among `classes`, those of A, each class of `other` is: int64 [K].

    Raises:
        InputError: the two sets differ; with the first difference.
    """
    places = {label: index for index, label in enumerate(classes)}
    alone = [("A", label) for label in classes if label not in other.classes]
    alone += [("B", label) for label in other.classes if label not in places]
    if alone:
        has, label = alone[0]
        are = "is" if len(alone) == 1 else "are"
        raise InputError(
            f"A has {len(classes)} classes, B {len(other.classes)}; {len(alone)} {are} in one only, such as {label!r} "
            f"({has}); compare networks of the same classes"
        )
    return np.array([places[label] for label in other.classes], np.int64)


def open_both(a: Side, b: Side, options: CompareOptions, stack: ExitStack) -> tuple[CheckedSession, CheckedSession]:
    """Both networks on one backend, so that no difference is the backend's; `stack` closes them.

    Raises:
        InputError, BackendUnavailable: the backend that was named cannot open both, or none can.
        BundleError: a file was changed, or an engine's answers are not the network's.
    """
    runs = [side for side in (a, b) if side.is_run]
    if runs and options.backend not in (AUTO, "pytorch"):
        raise InputError(
            f"{runs[0].name}: the run {runs[0].bundle.root} was never exported, so pytorch alone can run it; make its "
            f"bundle: samdeploy export {runs[0].bundle.root}"
        )
    if options.backend != AUTO:
        return _open_on(options.backend, a, b, options, stack)
    reasons: dict[str, str] = {}
    for backend in ("pytorch",) if runs else PREFERENCE:
        try:
            with ExitStack() as trial:
                sessions = _open_on(backend, a, b, options, trial)
                stack.push(trial.pop_all())
        except (BackendUnavailable, InputError) as error:
            reasons[backend] = str(error)
            continue
        for name, reason in reasons.items():
            if availability(name) is None:  # not worth a line where the runtime is not there at all
                print(f"not run with {name}: {printable(reason)}", file=sys.stderr)
        return sessions
    raise BackendUnavailable(
        "no runtime can open A and B here:" + "".join(f"{NEXT_FAULT}{name}: {error}" for name, error in reasons.items())
    )


def _open_on(
    backend: str, a: Side, b: Side, options: CompareOptions, stack: ExitStack
) -> tuple[CheckedSession, CheckedSession]:
    first, second = (
        stack.enter_context(
            open_session(
                side.bundle,
                backend,
                device=options.device,
                precision=options.precision,
                check=not side.is_run,  # a run has no golden images
            )
        )
        for side in (a, b)
    )
    return first, second
