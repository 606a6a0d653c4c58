"""`samdeploy bench` on a real bundle: the report, the table, bad input, and engines that die."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samdeploy.backends.onnxruntime.session import OnnxruntimeSession
from samdeploy.bench import cold_start
from samdeploy.bench.bench import bench_bundle
from samdeploy.bench.bench_engine import CONCURRENCY
from samdeploy.bench.options import BenchOptions
from samdeploy.bundle import Bundle
from samdeploy.cli.bench import bench
from samdeploy.report.text.bench import bench_tables
from tests.cli.typed import Inside

pytest.importorskip("onnxruntime")
Command = Callable[..., "subprocess.CompletedProcess[str]"]
FIGURE = {"p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "runs", "p50_low_ms", "p50_high_ms", "steady", "noise"}


def test_everything_about_one_engine(digits_bundle: Bundle, command: Command, tmp_path: Path) -> None:
    arguments = ("--backend", "onnxruntime", "--device", "cpu", "--seconds", "0.05", "--batch", "1,3")
    done = command("bench", digits_bundle.root, *arguments, "--json", tmp_path / "bench.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    report = json.loads((tmp_path / "bench.json").read_text())
    (engine,) = report["engines"]
    assert (engine["backend"], engine["precision"], engine["device"], engine["ran"], engine["reason"]) == (
        "onnxruntime", "fp32", "cpu", True, "",
    )  # fmt: skip
    device, copies, whole = engine["figures"]
    assert (device["stage"], device["latency"]) == ("device only", None)
    assert device["note"].startswith("same as with copies")
    for figure, stage in ((copies, "with copies"), (whole, "end to end")):
        assert figure["stage"] == stage
        assert set(figure["latency"]) >= FIGURE
        assert figure["latency"]["runs"] >= 30
        assert figure["latency"]["p50_low_ms"] <= figure["latency"]["p50_ms"] <= figure["latency"]["p50_high_ms"]
    assert [point["batch"] for point in engine["batches"]] == [1, 3]
    assert [(point["threads"], point["sessions"]) for point in engine["threads"]] == list(CONCURRENCY)
    assert all(point["images_per_s"] > 0 for point in (*engine["batches"], *engine["threads"]))
    start = engine["cold_start"]
    assert start["processes"] == 3
    assert 0 < start["open_to_answer_ms"] < start["start_to_answer_ms"]
    assert report["images"] == "64 test images of digits (PNG, the first of 8x8)"
    assert report["against"] == []
    for word in ("with copies", "end to end", "images/s", "cold start  ", "4 on 4", "95 % interval"):
        assert word in done.stdout


def test_against_from_the_command_line(digits_bundle: Bundle, inside: Inside, tmp_path: Path) -> None:
    code, output, errors = inside(
        "bench", digits_bundle.root, "--against", "--alternatives", "trtexec", "--backend", "onnxruntime",
        "--device", "cpu", "--rounds", "5", "--batch", "2", "--json", "out.json", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, errors
    assert max(map(len, output.splitlines())) <= 80
    (found,) = json.loads((tmp_path / "out.json").read_text())["against"]
    assert (found["batch"], found["rounds"], found["base"]) == (2, 5, "samdeploy onnxruntime fp32")
    assert [row["times_base"] for row in found["rows"]] == [1.0, None]
    assert "batch 2, host memory to host memory, 5 rounds in turns" in output


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start, "REPEATS", 1)
    monkeypatch.setattr("samdeploy.bench.bench_engine.CONCURRENCY", ((2, 1),))
    monkeypatch.setattr("samdeploy.evaluate.latency.measure.MIN_RUNS", 10)


@pytest.mark.usefixtures("quick")
def test_a_session_that_dies_in_the_middle(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = OnnxruntimeSession.run

    def dying(self: OnnxruntimeSession, batch: np.ndarray) -> np.ndarray:
        if len(batch) == 4:
            raise RuntimeError("out of memory")
        return plain(self, batch)

    monkeypatch.setattr(OnnxruntimeSession, "run", dying)
    options = BenchOptions(device="cpu", batches=(1, 4, 5), seconds=0.05, precision="fp32")
    report = bench_bundle(digits_bundle, options)
    dead, sound, missing = report.engines
    assert (dead.backend, dead.ran, dead.reason) == ("onnxruntime", True, "batch 4: out of memory")
    assert [point.batch for point in dead.batches] == [1, 5]
    assert dead.cold_start is not None
    assert [point.batch for point in sound.batches] == [1, 4, 5]
    assert (missing.backend, missing.ran, bool(missing.reason)) == ("tensorrt", False, True)
    assert not report.complete
    text = bench_tables(report)
    assert "failed       batch 4: out of memory" in text
    assert "tensorrt fp32\nnot run  " in text


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"batch": "0,1"}, 2, "--batch: 0, 1 found, sizes of at least 1 expected"),
        ({"batch": "one"}, 2, "--batch: 'one' found, numbers expected, such as 1,8,64"),
        ({"seconds": 0.0}, 2, "--seconds: 0.0 found, at least 0.05 expected"),
        ({"seconds": float("nan")}, 2, "--seconds: nan found"),
        ({"seconds": float("inf")}, 2, "--seconds: inf found, at most 1000000 expected"),
        *(
            ({"url": "http://127.0.0.1:9/v2/models/x", "seconds": seconds}, 2, f"--seconds: {seconds} found, at ")
            for seconds in (-1.0, float("nan"), float("inf"), 0.0, 1e-9)
        ),
        ({"rounds": 4, "against": True}, 2, "--rounds: 4 found, at least 5 expected"),
        ({"alternatives": "pytorch eager"}, 2, "--alternatives: only with --against; add --against"),
        ({"clients": "2"}, 2, "--clients: only with --url"),
        ({"api_key_file": Path("nowhere")}, 2, "--api-key-file: only with --url"),
        ({"url": "http://127.0.0.1:9/v2/models/x", "batch": "4"}, 2, "--batch: not with --url"),
        ({"against": True, "alternatives": "torch"}, 2, "unknown alternative 'torch'; did you mean 'torch.compile'"),
        ({"backend": "onnx"}, 2, "unknown backend 'onnx'; did you mean 'onnxruntime'?"),
        ({"images": Path("nowhere")}, 2, "--images: nowhere is not a folder"),
        ({"json_file": Path("nowhere/x.json")}, 2, "--json: the folder nowhere does not exist; make it first"),
        ({"json_file": Path()}, 2, "--json: . is a folder; name a file"),
        ({"backend": "onnxruntime", "precision": "bf16"}, 2, "backend 'onnxruntime' runs fp32, fp16, int8"),
        ({"backend": "onnxruntime", "precision": "fp16", "device": "cpu"}, 1, ""),
    ],
    ids=str,
)
def test_bad_input(
    options: dict[str, Any],
    code: int,
    words: str,
    digits_bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        bench(digits_bundle.root, **options)
    assert end.value.code == code
    printed = capsys.readouterr()
    assert words in printed.err
    if code == 1:  # no engine that could be benched is here: the reason is the row
        assert "onnxruntime fp16\nnot run  " in printed.out
        assert "has no FP16 kernels" in " ".join(printed.out.split())


def test_a_batch_outside_the_profile_is_refused_before_anything_is_measured(
    digits_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    if digits_bundle.find("engine", backend="tensorrt") is None:
        pytest.skip("no TensorRT engine can be built here")
    with pytest.raises(SystemExit) as end:
        bench(digits_bundle.root, backend="tensorrt", batch="8,128")
    assert end.value.code == 2
    assert "--batch: 128 found, but the profile of tensorrt fp16 takes 1 to 64" in capsys.readouterr().err
