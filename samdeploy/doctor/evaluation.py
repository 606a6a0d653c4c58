"""What eval.json says of a bundle: whether its evaluation passed, and whether the bundle is to blame if not."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from samdeploy.bundle import Bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import BundleError
from samdeploy.evaluate.eval_file import EVAL_FILE, EvalFile, read_eval
from samdeploy.terminal.wording import VERDICTS

_DAMAGED = f"{EVAL_FILE} is damaged, or of another version; make it again: samdeploy eval"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """
    Attributes:
        words: verdict, test images and engines; if only the test set or the minimums failed it, why; "" if there was no
            evaluation.
        problem: why the bundle is to blame, with the command that shows more; "" if it is not.
    """

    words: str = ""
    problem: str = ""


def read_evaluation(bundle: Bundle) -> Evaluation:
    """Judge the bundle's eval.json; one of an earlier manifest is no problem of this one."""
    try:
        found = read_eval(bundle.root)
        digest = hashlib.sha256((bundle.root / MANIFEST).read_bytes()).hexdigest()
    except (BundleError, OSError):
        return Evaluation(_DAMAGED if (bundle.root / EVAL_FILE).exists() else "")
    ran = ", ".join(row.engine for row in found.results if row.ran) or "no engine ran"
    data = f" of {found.data_root}" if found.data_root else ""
    words = f"{VERDICTS[found.verdict].word} on {found.n_images:,} test images{data}: {ran}"
    if found.manifest_sha256 != digest:
        return Evaluation(f"of an earlier export ({words})")
    if found.verdict != "fails":
        return Evaluation(words)
    if list(_of_the_bundle(found)):
        return Evaluation(words, f"bundle {bundle.root}: its evaluation did not pass; {_command(bundle, found)}")
    return Evaluation("; ".join([words, *_of_the_test(found), "no fault of the bundle"]))


def _of_the_bundle(found: EvalFile) -> Iterator[str]:
    """Contradictions, and engines that fail by more than the user's minimums."""
    yield from (fault for fault in found.faults if fault not in found.test_set_faults)
    for row in found.results:
        is_failing = row.ran and not row.passed and row.verdict != "cannot tell"
        if is_failing and row.reason != row.below_minimum:
            yield row.reason


def _of_the_test(found: EvalFile) -> list[str]:
    """The test set and the minimums; else the engines that were asked for by name and did not run."""
    below = [f"{row.engine}: {row.below_minimum}" for row in found.results if row.below_minimum]
    reasons = [*found.test_set_faults, *below]
    return reasons or [f"{row.engine} could not run there" for row in found.results if not row.ran]


def _command(bundle: Bundle, found: EvalFile) -> str:
    """The evaluation again, with a look for the cause."""
    return shlex.join(
        ["samdeploy", "eval", str(bundle.root), *(["--data", found.data_root] if found.data_root else []), "--why"]
    )
