"""A bundle: every file hashed, every engine opened."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from samdeploy.backends import availability, open_session
from samdeploy.bench.engines import ALL, Engine, select_engines
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.bundle.spec import named_model
from samdeploy.doctor.evaluation import read_evaluation
from samdeploy.doctor.findings import BundleState, EngineState
from samdeploy.errors import BackendUnavailable, BundleError, InputError, PackageMissing, SamdeployError
from samdeploy.evaluate.contradictions import find_contradictions
from samdeploy.evaluate.eval_file import EVAL_FILE
from samdeploy.progress import progress_bar

# Written beside the manifest by eval and bench, and listed nowhere.
_KNOWN = (MANIFEST, EVAL_FILE, "bench.json", "bench-against.json")


def examine_bundle(path: Path) -> BundleState:
    """Look at everything in a bundle; whatever is wrong is in the answer, nothing is raised."""
    try:
        bundle = open_bundle(path)
    except BundleError as error:
        return BundleState(str(path), "", 0, 0, (), (), (), "", (str(error),))
    with progress_bar("examining the bundle", len(bundle.files) + 1) as advance:
        damaged = []
        for file in bundle.files:
            try:
                bundle.read(file)
            except (BundleError, OSError) as error:
                damaged.append(str(error))
            advance(1, file.path)
        problems = list(damaged)
        engines: tuple[EngineState, ...] = ()
        if not damaged:
            tried = [_opened(bundle, engine) for engine in select_engines(bundle, ALL, None)]
            engines = tuple(state for state, _ in tried)
            problems += find_contradictions(bundle)
            problems += [f"{state.backend} {state.precision}: {state.reason}" for state, wrong in tried if wrong]
            problems += _golden_problems(bundle)
            problems += _reference_problems(bundle)
            if not any(state.reason == "" for state in engines):
                problems.append(f"bundle {path}: none of its engines runs on this machine")
    spec, pixels = bundle.spec, bundle.spec.preprocessing
    size = f"{len(spec.classes)} classes, {pixels.height}x{pixels.width} px"
    evaluation = read_evaluation(bundle)
    problems += [evaluation.problem] if evaluation.problem else []
    return BundleState(
        path=str(path),
        summary=f"{named_model(spec.arch, spec.options)}, {size}" + (f"; {spec.license}" if spec.license else ""),
        files=len(bundle.files),
        size=sum(file.bytes for file in bundle.files),
        damaged=tuple(damaged),
        strangers=tuple(_strangers(bundle)),
        engines=engines,
        evaluation=evaluation.words,
        problems=tuple(problems),
    )


def _golden_problems(bundle: Bundle) -> Iterator[str]:
    from samdeploy.bundle.golden import proves_nothing

    try:
        nothing = proves_nothing(*bundle.golden())
    except BundleError:  # no engine could be opened, which says so
        return
    if nothing:
        yield f"bundle {bundle.root}: {nothing}, so opening an engine proves nothing; samdeploy export"


def _reference_problems(bundle: Bundle) -> Iterator[str]:
    """Whether nothing here knows the network; that a package is missing is no fault of the bundle."""
    if availability("pytorch") is not None:
        return
    try:
        open_session(bundle, "pytorch", device="cpu", check=False).close()
    except BackendUnavailable as error:
        if isinstance(error.__cause__, InputError) and not isinstance(error.__cause__, PackageMissing):
            yield str(error)
    except SamdeployError:  # a contradiction, which is found elsewhere
        return


def _opened(bundle: Bundle, engine: Engine) -> tuple[EngineState, bool]:
    """The state of one engine, and whether it is a problem: not being able to run here is none."""
    start = time.perf_counter()
    try:
        with open_session(bundle, engine.backend, precision=engine.precision) as session:
            seconds = time.perf_counter() - start
            return EngineState(engine.backend, engine.precision, session.device, "", seconds), False
    except BackendUnavailable as error:
        return EngineState(engine.backend, engine.precision, "", str(error), None), False
    except SamdeployError as error:
        return EngineState(engine.backend, engine.precision, "", str(error), None), True


def _strangers(bundle: Bundle) -> Iterator[str]:
    named = {file.path for file in bundle.files}
    for found in sorted(bundle.root.rglob("*")):
        name = found.relative_to(bundle.root).as_posix()
        if not found.is_dir() and name not in named and name not in _KNOWN:
            yield name
