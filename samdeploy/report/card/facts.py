"""What a bundle's own files say about its network: manifest.json, eval.json, and the run that it lies in.

Nothing else is known here, and nothing is added: what no file says is None, and the card calls it unknown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from samdeploy.bundle import Bundle
from samdeploy.bundle.annotations import Rules
from samdeploy.bundle.fields import read
from samdeploy.bundle.names import BUNDLE_FOLDER, MANIFEST, RUN_FILE
from samdeploy.errors import BundleError
from samdeploy.evaluate.accuracy.paired import rate_interval
from samdeploy.evaluate.eval_file import EVAL_FILE
from samdeploy.files import contained_file, read_json
from samdeploy.report.records import LeakRecord, leaks_of, read_leaks
from samdeploy.runs.locate import run_around, run_name, unlike_its_run
from samdeploy.runs.record import RunRecord, open_run
from samdeploy.terminal.wording import engine_name, engine_outcome

NO_EVALUATION = f"the bundle holds no {EVAL_FILE}; samdeploy eval writes one"
# What eval.json's schema allows: figures beyond it were written by hand.
_COUNT = Rules(at_least=0)
_PERCENT = Rules(at_least=0, at_most=100)
_SHARE = Rules(at_least=0, at_most=1)
_MS = Rules(at_least=0)


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class of the test images; percentages but for `precision` and `f1`, which are 0 to 1."""

    label: str
    images: int = field(metadata=_COUNT)
    top1: float | None = field(metadata=_PERCENT)
    precision: float | None = field(metadata=_SHARE)
    f1: float | None = field(metadata=_SHARE)


@dataclass(frozen=True, slots=True)
class LatencyFigures:
    """Of one image, in milliseconds; `p50_low_ms`, `p50_high_ms`: 95 % interval; `noise`: why it is no verdict."""

    p50_ms: float = field(metadata=_MS)
    p50_low_ms: float = field(metadata=_MS)
    p50_high_ms: float = field(metadata=_MS)
    p95_ms: float = field(metadata=_MS)
    p99_ms: float = field(metadata=_MS)
    noise: str


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """One row of eval.json; docs/files.md explains the fields."""

    backend: str
    precision: str
    device: str
    ran: bool
    passed: bool
    verdict: str | None
    reason: str
    top1: float | None = field(metadata=_PERCENT)
    reference_top1: float | None = field(metadata=_PERCENT)
    top1_agreement: float | None = field(metadata=_PERCENT)
    top5: float | None = field(metadata=_PERCENT)
    difference: float | None = field(metadata=Rules(at_least=-100, at_most=100))
    difference_low: float | None
    difference_high: float | None
    ece: float | None = field(metadata=_PERCENT)
    balanced_accuracy: float | None = field(metadata=_PERCENT)
    macro_f1: float | None = field(metadata=_SHARE)
    reference_top5: float | None = field(metadata=_PERCENT)
    reference_ece: float | None = field(metadata=_PERCENT)
    reference_balanced_accuracy: float | None = field(metadata=_PERCENT)
    reference_macro_f1: float | None = field(metadata=_SHARE)
    classes: tuple[ClassFigures, ...] | None
    latency: LatencyFigures | None
    date: str
    machine: str

    @property
    def name(self) -> str:
        """What to call it: "openvino int8", and the device where that is not the CPU."""
        return engine_name(self.backend, self.precision, self.device)

    @property
    def outcome(self) -> str:
        """What became of it, in a word."""
        return engine_outcome(ran=self.ran, verdict=self.verdict, passed=self.passed).word


@dataclass(frozen=True, slots=True)
class AboutTestImages:
    """What is special about the test images, in words."""

    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """eval.json, as far as a card needs it; docs/files.md explains the fields."""

    verdict: str
    n_images: int = field(metadata=Rules(at_least=1))
    test_images: AboutTestImages
    dataset: str
    test_set: str
    reference: str
    margin: float = field(metadata=Rules(above=0, below=100))
    confidence: float = field(metadata=Rules(at_least=0.5, below=1))
    manifest_sha256: str
    test_fingerprint: str
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    faults: tuple[str, ...]
    results: tuple[EngineFigures, ...]

    @property
    def answered(self) -> tuple[EngineFigures, ...]:
        """The engines that answered every test image."""
        return tuple(row for row in self.results if row.top1 is not None)

    def interval(self, top1: float) -> tuple[float, float]:
        """Of a top-1 on these images, in percent: exact (Clopper and Pearson), two-sided, with `confidence`."""
        return rate_interval(round(top1 * self.n_images / 100), self.n_images, self.confidence)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a card may say.

    Attributes:
        name: of the run that it was exported from, or of the bundle's folder.
        evaluation: None if this bundle was not evaluated; `no_evaluation` says why.
        run: None where the bundle does not lie in the run that it was exported from.
        leaks: test or val images that are in other splits, too; None where nobody looked.
    """

    name: str
    bundle: Bundle
    manifest_sha256: str
    evaluation: Evaluation | None
    no_evaluation: str
    run: RunRecord | None
    leaks: tuple[LeakRecord, ...] | None

    @property
    def license(self) -> str | None:
        """Of the weights, as their own record names it."""
        return self.bundle.spec.license

    def split_name(self, split: str) -> str:
        """What a split is called; the "train" of an imported network are images of any split but test."""
        return "seen by import and export, val with them" if self.bundle.is_imported and split == "train" else split

    def limits(self) -> tuple[str, ...]:
        """Sentences on what the figures do not show, each from one of the files."""
        found = self.evaluation
        said: list[str] = [] if found is not None else [f"No engine was evaluated: {self.no_evaluation}."]
        if found is not None:
            said += [*found.faults, *found.test_images.remarks, *found.notes, *found.left_out]
            said += [f"{row.name}: {row.reason or row.outcome}" for row in found.results if not row.passed]
            said += [f"Latency of {row.name}: {row.latency.noise}" for row in found.results
                     if row.latency is not None and row.latency.noise]  # fmt: skip
        said += self.run.warnings if self.run is not None else ()
        if self.bundle.calibration is None:
            said.append("Probabilities are not calibrated: no temperature was fitted.")
        if self.bundle.rejection is None:
            said.append(
                "No answer is ever rejected: an image that shows none of the classes is given one of them, too."
            )
        return tuple(dict.fromkeys(said))


def gather_facts(bundle: Bundle) -> Facts:
    """Read what lies in and around an opened bundle.

    Raises:
        BundleError: a file that is there is damaged, or was changed since the manifest was written.
    """
    content = contained_file(bundle.root, MANIFEST, f"bundle {bundle.root}").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    evaluation, leaks, reason = _evaluation(bundle, sha256)
    # Of a bundle that was copied elsewhere, the folder around it is nobody's run.
    around = run_around(bundle)
    is_in_a_run = bundle.root.resolve().name == BUNDLE_FOLDER and (around / RUN_FILE).is_file()
    is_its_run = is_in_a_run and not unlike_its_run(bundle)
    if is_its_run and leaks is None:
        leaks = read_leaks(bundle)
    name = bundle.provenance.get("run") or run_name(bundle)
    return Facts(name, bundle, sha256, evaluation, reason, open_run(around) if is_its_run else None, leaks)


def _evaluation(bundle: Bundle, sha256: str) -> tuple[Evaluation | None, tuple[LeakRecord, ...] | None, str]:
    """eval.json and the leaks that it found; None and the reason if it belongs to another manifest or is missing."""
    if not (bundle.root / EVAL_FILE).exists():
        return None, None, NO_EVALUATION
    values = read_json(contained_file(bundle.root, EVAL_FILE, f"bundle {bundle.root}"), "evaluation")
    try:
        found = read(Evaluation, values, str(bundle.root / EVAL_FILE), BundleError, ignore_other_keys=True)
    except BundleError as error:
        raise BundleError(f"{error}; make it again: samdeploy eval {bundle.root}") from None
    if found.manifest_sha256 != sha256:
        return None, None, f"{EVAL_FILE} is of another bundle than this one; samdeploy eval writes a new one"
    leaks = values.get("leaks")
    return found, leaks_of(leaks) if isinstance(leaks, Mapping) else None, ""
