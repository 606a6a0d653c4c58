"""The model card: Markdown below YAML front matter, as Hugging Face's hub reads it.

The form is that of https://huggingface.co/docs/hub/model-cards; `huggingface_hub.ModelCard` reads it back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import samdeploy
from samdeploy.bundle.names import set_name
from samdeploy.bundle.spec import named_model
from samdeploy.report.card.facts import EngineFigures, Evaluation, Facts
from samdeploy.terminal import printable
from samdeploy.terminal.wording import count, megabytes, milliseconds, percent, points, span

UNKNOWN = "unknown"
# Licences of weights that the hub has a name for; of any other one it wants the name beside "other".
_HUB_LICENSES = frozenset(
    ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0",
     "cc-by-nc-sa-4.0", "openrail", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0")
)  # fmt: skip
# Of more classes the table is folded up, and their names are left out above it.
_FEW_CLASSES = 20
# Pairs of splits that are of interest: judged or chosen on, and trained on.
_LEAKED = {"test": ("train", "val"), "val": ("train",)}


def model_card(facts: Facts) -> str:
    """README.md for a bundle: every figure is from one of its files, and what no file says is called unknown."""
    parts = [
        _front_matter(facts),
        f"# {text(facts.name)}",
        f"Written by samdeploy {samdeploy.__version__} (`samdeploy card`) from the files of the bundle alone. "
        f'"{UNKNOWN.capitalize()}" means that none of them says it.',
        _table(("", ""), _model(facts)),
        "## Intended use",
        _intended_use(facts),
        "## Data",
        _data(facts),
        "## Training",
        _training(facts),
        "## Metrics",
        _metrics(facts),
        "## Engines",
        _engines(facts.evaluation, facts.no_evaluation),
        "## Limits",
        _list(map(text, facts.limits())),
        "## Licence",
        _license(facts),
        "## Files",
        _files(facts),
    ]
    return "\n\n".join(parts) + "\n"


def text(value: object) -> str:
    """`value` on one line, with nothing in it that Markdown or HTML would act on."""
    # "://", "@" and "www.": GitHub's Markdown makes links of them.
    escaped = re.sub(r"([\\`*_\[\]<>#|~$&@]|:(?=//)|(?<=www)\.)", r"\\\1", printable(value).strip())
    # At its start: "- ", "1. ", "---", "===". Spaces there would make it code.
    return re.sub(r"^(?:(\d{1,9})(?=[.)](?: |$))|(?=[-+=]))", r"\1\\", escaped)


def _yaml(value: object) -> str:
    """A double-quoted YAML scalar: YAML 1.2, section 7.3.1."""
    safe = (
        letter if letter.isprintable() and letter not in '"\\' else f"\\U{ord(letter):08x}" for letter in str(value)
    )
    return f'"{"".join(safe)}"'


def _front_matter(facts: Facts) -> str:
    license_ = facts.license
    is_known = (license_ or "").lower() in _HUB_LICENSES
    lines = [f"license: {license_.lower() if license_ and is_known else 'other' if license_ else UNKNOWN}"]
    if license_ and not is_known:
        lines.append(f"license_name: {_yaml(license_)}")
    lines += ["library_name: samdeploy", "pipeline_tag: image-classification", "tags:", "- image-classification"]
    lines += [f"- {name}" for name in ("samdeploy", "onnx")]
    if facts.evaluation is not None and facts.evaluation.answered:
        lines += ["model-index:", f"- name: {_yaml(facts.name)}", "  results:", "  - task:"]
        lines += ["      type: image-classification", "    dataset:"]
        lines += [f"      name: {_yaml(facts.evaluation.dataset)}", f"      type: {_yaml(facts.evaluation.dataset)}"]
        lines += ["      split: test", "    metrics:"]
        for kind, name, value in _hub_metrics(facts.evaluation):
            lines += [f"    - type: {kind}", f"      value: {value:.6f}", f"      name: {_yaml(name)}"]
    return "\n".join(["---", *lines, "---"])


def _hub_metrics(found: Evaluation) -> Iterator[tuple[str, str, float]]:
    """Type, name and value, 0 to 1, of the network as trained, and top-1 of each engine."""
    first = found.answered[0]
    if first.reference_top1 is not None:
        yield "accuracy", f"top-1, {found.reference}", first.reference_top1 / 100
    if first.reference_macro_f1 is not None:
        yield "f1", f"macro F1, {found.reference}", first.reference_macro_f1
    for row in found.answered:
        if row.top1 is not None:
            yield "accuracy", f"top-1, {row.name}", row.top1 / 100


def _model(facts: Facts) -> Iterator[tuple[str, str]]:
    spec, size = facts.bundle.spec, facts.bundle.spec.preprocessing
    fit = (
        f"the shorter side to {size.resize_short}, then the middle" if size.resize_short else "both sides to the input"
    )
    precisions = sorted({file.precision or UNKNOWN for file in facts.bundle.select("graph")})
    weights = facts.bundle.find("weights")
    yield "architecture", text(named_model(spec.arch, spec.options))
    yield "task", f"image classification, {count(len(spec.classes))} classes, one answer per image"
    yield "input", f"uint8 [N, {size.height}, {size.width}, 3], RGB; resized: {fit} ({text(size.resize)})"
    yield "normalised", f"inside the graph, mean {_numbers(size.mean)}, standard deviation {_numbers(size.std)}"
    yield "output", f"float32 [N, {len(spec.classes)}], logits"
    yield "graphs", ", ".join(precisions) or UNKNOWN
    yield "weights", f"SHA-256 `{weights.sha256}`" if weights is not None else UNKNOWN
    yield "manifest", f"SHA-256 `{facts.manifest_sha256}`; it holds the SHA-256 of every other file"


def _intended_use(facts: Facts) -> str:
    classes = facts.bundle.spec.classes
    named = f": {', '.join(map(text, classes))}" if len(classes) <= _FEW_CLASSES else ""
    return _list(
        [
            f"It names which of {count(len(classes))} classes an image shows{named}.",
            "Whom and what it was made for, and what it must not be used for: unknown.",
            "The figures below are of the images named here, and say nothing of images of another kind.",
        ]
    )


def _data(facts: Facts) -> str:
    data = facts.bundle.data
    rows = [(text(facts.split_name(split)), count(images), f"`{text(data.fingerprints.get(split, UNKNOWN))}`")
            for split, images in data.counts.items()]  # fmt: skip
    options = ", ".join(f"{key} {value}" for key, value in data.options.items())
    lines = [f"Data set: {text(set_name(data.name))}{f' ({text(options)})' if options else ''}."]
    if data.counts.get("val"):
        lines.append(f"Share of train that val was to be: {data.val_fraction:g}, drawn with seed {data.split_seed}.")
    lines += [_leak(facts), f"Origin, consent and licence of the images: {UNKNOWN}."]
    table = _table(("split", ">images", "SHA-256 of prepared images and labels"), rows)
    return f"{table}\n\n{_list(lines)}"


def _leak(facts: Facts) -> str:
    if facts.leaks is None:
        return f"Images that are in two splits: {UNKNOWN}."
    found = [f"{count(leak.exact)} of {count(leak.images)} {text(leak.split)} images are in {text(leak.other)}, too"
             + (f", {count(leak.near)} more look alike" if leak.near is not None else "")
             for leak in facts.leaks if leak.other in _LEAKED.get(leak.split, ())]  # fmt: skip
    if facts.bundle.is_imported:
        most = max((leak.exact for leak in facts.leaks), default=0)
        return (
            f"Test images among those that import and export looked at: {count(most)}; what else the network has seen "
            "is unknown."
        )
    return f"Images that are in two splits: {'; '.join(found) or UNKNOWN}."


def _training(facts: Facts) -> str:
    measured, provenance = facts.bundle.measured, facts.bundle.provenance
    rows = [(text(key.removeprefix("trained_with_").replace("_", " ")), text(value))
            for key, value in provenance.items() if key.startswith("trained_with_")]  # fmt: skip
    rows += [(text(f"exported: {key.replace('_', ' ')}"), text(value)) for key, value in provenance.items()
             if not key.startswith("trained_with_")]  # fmt: skip
    if measured is not None:
        rows.append(("epoch of the weights", count(measured.epoch) if measured.epoch else "trained elsewhere"))
        aside = "val (perhaps trained on)" if facts.bundle.is_imported else "val"
        for name, split in ((aside, measured.val), ("test", measured.test)):
            rows.append(
                (f"top-1 on {name}, %", f"{percent(split.top1)} of {count(split.images)} images" if split else UNKNOWN)
            )
    return _table(("", ""), rows) if rows else f"{UNKNOWN.capitalize()}."


def _metrics(facts: Facts) -> str:
    found = facts.evaluation
    if found is None or not found.answered:
        reason = facts.no_evaluation or "no engine answered every test image"
        return f"Not evaluated: {text(reason)}."
    first, confidence = found.answered[0], f"{100 * found.confidence:g} %"
    reference: list[float | None] = [
        first.reference_top5, first.reference_balanced_accuracy, first.reference_macro_f1, first.reference_ece
    ]  # fmt: skip
    rows = [_metric_row(found, f"{found.reference}, as trained", first.reference_top1, reference)]
    rows += [_metric_row(found, row.name, row.top1, [row.top5, row.balanced_accuracy, row.macro_f1, row.ece])
             for row in found.answered]  # fmt: skip
    head = (
        "",
        ">top-1, %",
        f"{confidence} interval",
        ">top-5, %",
        ">balanced accuracy, %",
        ">macro F1",
        ">ECE, points",
    )
    same = f"{count(found.n_images)} distinct test images of {text(set_name(found.dataset))}, {text(found.test_set)}"
    calibration, rejection = facts.bundle.calibration, facts.bundle.rejection
    notes = [f"{same}; SHA-256 `{text(found.test_fingerprint)}`. Intervals of top-1 are exact (Clopper-Pearson)."]
    notes += [f"Probabilities: softmax of logits over {calibration.temperature:.4g}, fitted on "
              f"{count(calibration.images)} validation images."] if calibration else []  # fmt: skip
    notes += [f"Answers with a probability below {rejection.threshold:.4g} are rejected: of the others at most "
              f"{rejection.bound:.3g} % are wrong (95 %, {count(rejection.images)} validation images), and "
              f"{rejection.coverage:.1f} % are left."] if rejection else []  # fmt: skip
    return f"{_table(head, rows)}\n\n{_list(notes)}\n\n{_classes(first)}"


def _metric_row(found: Evaluation, name: str, top1: float | None, others: Sequence[float | None]) -> tuple[str, ...]:
    interval = NOTHING if top1 is None else span(*found.interval(top1), percent)
    top5, balanced, f1, ece = others
    return text(name), percent(top1), interval, percent(top5), percent(balanced), _share(f1), percent(ece)


def _classes(row: EngineFigures) -> str:
    if not row.classes:
        return f"Figures per class: {UNKNOWN}."
    table = _table(
        ("class", ">test images", ">recall, %", ">precision", ">F1"),
        [(text(each.label), count(each.images), percent(each.top1), _share(each.precision), _share(each.f1))
         for each in row.classes],
    )  # fmt: skip
    title = f"Per class, {text(row.name)}"
    if len(row.classes) <= _FEW_CLASSES:
        return f"{title}:\n\n{table}"
    return f"<details><summary>{title}</summary>\n\n{table}\n\n</details>"


def _engines(found: Evaluation | None, reason: str) -> str:
    if found is None:
        return f"Not evaluated: {text(reason)}."
    rows = []
    for row in found.results:
        change = f"{points(row.difference)} ({span(row.difference_low, row.difference_high, points)})"
        latency = row.latency
        times = [NOTHING] * 3
        if latency is not None:
            times = [milliseconds(value) for value in (latency.p50_ms, latency.p95_ms, latency.p99_ms)]
        where = text(f"{row.machine}, {row.date[:10]}") if row.ran else NOTHING
        rows.append(
            (text(row.name), text(row.outcome), percent(row.top1_agreement) if row.ran else NOTHING,
             change if row.difference is not None else NOTHING, *times, where)
        )  # fmt: skip
    head = (
        "engine", "verdict", ">same class as trained, %", f"change of top-1, points ({100 * found.confidence:g} %)",
        ">p50, ms", ">p95, ms", ">p99, ms", "measured",
    )  # fmt: skip
    note = (
        f"Latency of one image, from host memory to host memory. FP32 must name the same class for every image; "
        f"another precision must be shown to lose less than {found.margin:g} points of top-1."
    )
    return f"{_table(head, rows)}\n\n{note}"


def _license(facts: Facts) -> str:
    if facts.license is None:
        return f"Of the weights: {UNKNOWN}, no file of the bundle names one. Of the images: {UNKNOWN}."
    return f"Of the weights: {text(facts.license)}, as their own record names it. Of the images: {UNKNOWN}."


def _files(facts: Facts) -> str:
    rows = [(text(file.path), text(file.role.replace("_", " ")), text(file.precision) if file.precision else NOTHING,
             megabytes(file.bytes), f"`{file.sha256}`") for file in facts.bundle.files]  # fmt: skip
    return _table(("file", "role", "precision", ">MB", "SHA-256"), rows)


NOTHING = "-"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]] | Mapping[str, str]) -> str:
    """A table of GitHub's Markdown; a heading that begins with ">" is of numbers, and its column flush right."""
    names = [name.removeprefix(">") for name in head]
    rule = ["---:" if name.startswith(">") else "---" for name in head]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, rule, *rows))
