"""An evaluation in parts gives what one that sees every image gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle
from samdeploy.data import open_dataset
from samdeploy.errors import InputError
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.evaluate.result import Report
from samdeploy.evaluate.stored.merge import evaluate_shards
from samdeploy.evaluate.stored.shard import Shard, evaluate_shard, read_shard, write_shard
from samdeploy.evaluate.test_set.open import TestSet
from tests.cli.typed import Inside

Sharded = Callable[..., Path]
ORT = EvalOptions("onnxruntime", "fp32", device="cpu", consistency_s=0)


@pytest.fixture
def sharded(tmp_path: Path) -> Sharded:
    """Called with a bundle and how many: a folder with as many shards."""

    def run(bundle: Bundle, count: int, options: EvalOptions = ORT) -> Path:
        folder = tmp_path / f"{count} shards"
        folder.mkdir()
        for number in range(1, count + 1):
            write_shard(folder / f"{number}.npz", evaluate_shard(bundle, options, (number, count)))
        return folder

    return run


def assert_same(merged: Report, whole: Report) -> None:
    for name in (
        "verdict", "passed", "n_images", "test_images", "test_set", "leaks", "against_training", "notes", "faults",
        "named", "left_out", "test_fingerprint",
    ):  # fmt: skip
        assert getattr(merged, name) == getattr(whole, name), name
    for one, other in zip(merged.results, whole.results, strict=True):
        assert (one.engine, one.device, one.ran, one.verdict, one.n_needed) == (
            other.engine, other.device, other.ran, other.verdict, other.n_needed,
        )  # fmt: skip
        if one.comparison is None or other.comparison is None:
            assert one.comparison is other.comparison is None and one.reason == other.reason
            continue
        for name in (
            "top1", "reference_top1", "top1_agreement", "top5", "change", "mcnemar_p", "classes", "macro_f1", "finite"
        ):  # fmt: skip
            assert getattr(one.comparison, name) == getattr(other.comparison, name), name
        # Batches begin anew in every shard, and sums in another order.
        assert one.comparison.ece == pytest.approx(other.comparison.ece, abs=1e-6)
        assert one.comparison.per_image.changed().tolist() == other.comparison.per_image.changed().tolist()


@pytest.mark.usefixtures("short_latency")
def test_merged_is_the_same_as_whole(digits_bundle: Bundle, sharded: Sharded) -> None:
    whole = evaluate_bundle(digits_bundle, ORT)
    merged = evaluate_shards(digits_bundle, ORT, [sharded(digits_bundle, 3)])
    assert_same(merged, whole)
    assert merged.passed and {"probes", "probabilities"} <= merged.results[0].parts.keys()
    assert merged.results[0].latency is not None
    one = evaluate_shards(digits_bundle, ORT, [sharded(digits_bundle, 1) / "1.npz"])
    assert one.results[0].comparison == whole.results[0].comparison


@pytest.mark.usefixtures("short_latency")
def test_flips_are_counted_across_shards(leaning_bundle: Bundle, sharded: Sharded) -> None:
    int8 = replace(ORT, precision="int8")
    whole = evaluate_bundle(leaning_bundle, int8)
    assert whole.results[0].comparison is not None and len(whole.results[0].comparison.per_image.changed()) > 1
    assert_same(evaluate_shards(leaning_bundle, int8, [sharded(leaning_bundle, 4, int8)]), whole)


@pytest.mark.usefixtures("short_latency")
def test_of_images_that_were_not_all_decoded_the_fingerprint_is_another(
    digits_bundle: Bundle, sharded: Sharded, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sharded(digits_bundle, 2)
    monkeypatch.setattr("samdeploy.evaluate.stored.merge.MOST_COMPARED", 358)
    assert digits_bundle.measured is not None and digits_bundle.measured.test is not None
    found = evaluate_shards(digits_bundle, ORT, [folder])
    assert found.test_fingerprint == digits_bundle.measured.test.labelled_sha256


@pytest.mark.usefixtures("short_latency")
def test_copies_in_two_shards_count_once(
    digits_bundle: Bundle, sharded: Sharded, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = digits_bundle.data
    honest = open_dataset(data.name, val_fraction=data.val_fraction, seed=data.split_seed).test.take(np.arange(60))
    copies = TestSet(honest.take(np.tile(np.arange(60), 3)), ())
    for module in ("evaluate", "stored.shard", "stored.merge"):
        monkeypatch.setattr(f"samdeploy.evaluate.{module}.open_test_set", lambda bundle, root: copies)
    whole = evaluate_bundle(digits_bundle, ORT)
    merged = evaluate_shards(digits_bundle, ORT, [sharded(digits_bundle, 4)])
    assert merged.n_images == 60 and merged.test_images.images == 180
    assert_same(merged, whole)


@pytest.mark.usefixtures("short_latency")
def test_an_engine_that_stopped_in_one_shard_fails(digits_bundle: Bundle, sharded: Sharded) -> None:
    folder = sharded(digits_bundle, 2)
    second = read_shard(folder / "2.npz", digits_bundle)
    (engine,) = second.engines
    write_shard(folder / "2.npz", replace(second, engines=(replace(engine, facts=None, reason="it broke"),)))
    merged = evaluate_shards(digits_bundle, ORT, [folder])
    assert merged.verdict == "fails"
    assert merged.results[0].reason == "stopped after 179 of 359 images: shard 2/2: it broke"


def one_other_image(shard: Shard) -> Shard:
    digests = shard.digests.copy()
    digests[18] += np.uint64(1)  # none of 256 at equal distances through all
    return replace(shard, digests=digests)


def other_labels(shard: Shard) -> Shard:
    (engine,) = shard.engines
    silent = replace(engine, facts=None, reason="it broke")
    return replace(shard, labels=shard.labels[::-1], engines=(silent,))


def short_facts(shard: Shard) -> Shard:
    (engine,) = shard.engines
    assert engine.facts is not None
    return replace(shard, engines=(replace(engine, facts=engine.facts.take(np.arange(115))),))


def test_what_does_not_belong_together_is_refused(
    digits_bundle: Bundle, timm_bundle: Bundle, sharded: Sharded, tmp_path: Path
) -> None:
    folder = sharded(digits_bundle, 3)

    def changed(change: Callable[[Shard], Shard]) -> list[Path]:
        other = tmp_path / "others" / f"{len(list((tmp_path / 'others').iterdir()))}.npz"
        write_shard(other, change(read_shard(folder / "2.npz", digits_bundle)))
        return [folder / "1.npz", other, folder / "3.npz"]

    (tmp_path / "others").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"PK")
    np.savez(tmp_path / "array.npz", a=np.zeros(3))
    for paths, text in (
        ([folder / "1.npz", folder / "3.npz"], "2 of 3 shards found; 2/3 is missing"),
        ([folder, folder / "2.npz"], "3 of 3 shards found; 2/3 is there twice"),
        ([tmp_path / "broken.npz"], "not a shard of an evaluation"),
        ([tmp_path / "array.npz"], "not a shard of an evaluation"),
        ([tmp_path], "not a shard of an evaluation"),
        ([tmp_path / "none"], "none: no such file; make it: samdeploy eval --shard"),
        (changed(other_labels), "other 359 are found here"),
        (changed(lambda shard: replace(shard, digests=shard.digests + np.uint64(1))), "not those of the shards"),
        (changed(one_other_image), "not those of the shards, digits"),
        (changed(lambda shard: replace(shard, start=3)), "images from 3 on found, from 119 on expected"),
        (changed(lambda shard: replace(shard, number=0)), "shard 0 of 3 for 359 images"),
        (
            changed(lambda shard: replace(shard, labels=shard.labels[5:])),
            r"labels: int64 \[115\] found, int64 \[120\] ",
        ),
        (changed(short_facts), r"labels: int64 \[115\] found, int64 \[120\] expected"),
        (changed(lambda shard: replace(shard, engines=(), named=False)), "shard 2 asked other engines"),
    ):
        with pytest.raises(InputError, match=text):
            evaluate_shards(digits_bundle, ORT, paths)
    with pytest.raises(InputError, match="of another bundle than"):
        evaluate_shards(timm_bundle, ORT, [folder])
    with pytest.raises(InputError, match="the test set has 359 images"):
        evaluate_shard(digits_bundle, ORT, (1, 360))


def one_is(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[7] = value
        return array

    return change


def test_figures_that_cannot_be_are_refused(digits_bundle: Bundle, sharded: Sharded, tmp_path: Path) -> None:
    folder = sharded(digits_bundle, 3)
    with np.load(folder / "2.npz") as file:
        arrays = dict(file)
    meta = json.loads(arrays["meta"].tobytes())

    def refused(text: str, **changed: object) -> None:
        np.savez(tmp_path / "2.npz", **(arrays | changed))
        with pytest.raises(InputError, match=rf"2.npz: not a shard of an evaluation, or damaged \(.*{text}") as found:
            evaluate_shards(digits_bundle, ORT, [folder / "1.npz", tmp_path / "2.npz", folder / "3.npz"])
        assert len(str(found.value)) < 400

    at = "of test image 126 is impossible, or stands otherwise elsewhere"  # the second shard begins with 119
    for name, change, text in (
        ("0.labels", lambda found: np.roll(found, 1), "labels of test image"),
        ("0.labels", lambda found: found.astype(str), r"labels: <U21 \[120\] found, int64 \[120\] expected"),
        ("0.top5", lambda found: found.astype(str), "top5: <U5"),
        ("perceptual", lambda found: found.astype(float), "perceptual: float64"),
        ("0.reference", lambda found: (found + 1) % 10, "reference of test image 119"),
        ("reference", one_is(10), f"reference {at}"), ("spread", one_is(np.nan), f"spread {at}"),
        ("0.spread", one_is(5), f"spread {at}"), ("small", one_is(np.nan), f"small {at}"),
        ("0.engine", one_is(10), f"engine {at}"), ("0.engine", one_is(-2), f"engine {at}"),
        ("0.engine", one_is(-1), f"top5 {at}"), ("0.top5", one_is(False), f"top5 {at}"),
        ("0.reference_top5", one_is(False), f"reference_top5 {at}"),
        ("0.reference_sure", one_is(1.5), f"reference_sure {at}"),
        ("0.difference", one_is(-1), f"difference {at}"), ("0.difference", one_is(np.nan), f"difference {at}"),
        ("0.difference", one_is(np.inf), f"difference {at}"), ("0.sure", one_is(2), f"sure {at}"),
        ("0.raw_sure", one_is(np.nan), f"raw_sure {at}"), ("0.nll", one_is(np.nan), f"nll {at}"),
        ("0.raw_nll", one_is(np.inf), f"raw_nll {at}"),
    ):  # fmt: skip
        refused(text, **{name: change(arrays[name])})

    def text_of(**changed: object) -> np.ndarray:
        return np.frombuffer(json.dumps(meta | changed).encode(), np.uint8)

    (engine,) = meta["engines"]
    copies = {f"1.{name[2:]}": array for name, array in arrays.items() if name.startswith("0.")}
    refused("an engine stands twice", meta=text_of(engines=[engine, engine]), **copies)
    refused("'foo fp32' is no engine", meta=text_of(engines=[["foo", "fp32", "", "no such thing"]]))
    refused("no engine", meta=text_of(engines=[]))
    for name in ("number", "count", "start", "total"):
        for value in (10**400, 2.0, "2", True):
            refused("integers of 64 bits expected", meta=text_of(**{name: value}))
    refused("recursion", meta=np.frombuffer(b"[" * 100_000, np.uint8))


@pytest.mark.usefixtures("short_latency")
def test_command(inside: Inside, copy_of_bundle: Path, tmp_path: Path) -> None:
    arguments = ("eval", copy_of_bundle)
    for shard in ("1/2", "2/2"):
        more = ("--backend", "onnxruntime", "--shard", shard, "--out", tmp_path / f"{shard[0]}.npz")
        code, output, errors = inside(*arguments, *more, cwd=tmp_path)
        assert code == 0 and output == f"{tmp_path / shard[0]}.npz\n", errors
    (copy_of_bundle / "eval.json").unlink(missing_ok=True)
    code, output, errors = inside(
        *arguments, "--merge", tmp_path / "1.npz", "--merge", tmp_path / "2.npz", cwd=tmp_path
    )
    assert code == 0 and "359 test images" in output, errors
    assert json.loads((copy_of_bundle / "eval.json").read_text())["verdict"] == "holds"
    code, output, errors = inside(*arguments, "--merge", tmp_path / "1.npz", cwd=tmp_path)
    assert code == 2 and "2/2 is missing" in errors
    for more, text in (
        (("--shard", "1/2"), "give both"), (("--out", "x"), "give both"),
        (("--shard", "3/2", "--out", tmp_path / "x"), "part I of N expected, such as 3/64"),
        (("--shard", "1/2", "--out", tmp_path / "x", "--json", tmp_path / "y"), "--json: not with --shard"),
        (("--shard", "1/2", "--out", tmp_path / "x", "--margin", "1"), "--margin: not with --shard"),
        (("--label-column", "x"), "--label-column: names a column"),
        (("--merge", tmp_path, "--backend", "openvino"), "--backend: not with --merge: the parts say"),
        (("--merge", tmp_path, "--shard", "1/2"), "--merge and --shard: give only one"),
    ):  # fmt: skip
        code, output, errors = inside(*arguments, *more, cwd=tmp_path)
        assert code == 2 and text in errors, errors
