"""The four commands as a user has them: processes and files, each taking the newest result of the one before."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from samdeploy.bundle import open_bundle
from samdeploy.runs.record import open_run
from tests.cli.typed import TINY, Inside
from tests.conftest import Command
from tests.marks import without_gpu

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder to begin with; the tests of the four commands fill it, in order."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="module")
def trained(workplace: Path, command: Command) -> subprocess.CompletedProcess[str]:
    return command("train", *TINY, cwd=workplace)


@pytest.fixture(scope="module")
def exported(
    workplace: Path, trained: subprocess.CompletedProcess[str], command: Command
) -> subprocess.CompletedProcess[str]:
    return command("export", cwd=workplace)


def test_train(workplace: Path, trained: subprocess.CompletedProcess[str]) -> None:
    assert (trained.returncode, trained.stderr.count("Traceback")) == (0, 0)
    (run,) = (workplace / "runs").iterdir()
    # Only the path goes to standard output: run=$(samdeploy train) works in a shell.
    assert trained.stdout == f"runs/{run.name}\n"
    assert " 1/1 " in trained.stderr
    assert open_run(run).status == "complete"
    assert [path.name for path in workplace.iterdir()] == ["runs"]


def test_export_takes_the_newest_run(workplace: Path, exported: subprocess.CompletedProcess[str]) -> None:
    (run,) = (workplace / "runs").iterdir()
    assert exported.returncode == 0, exported.stderr
    assert f"taking the newest run: runs/{run.name}\n" in exported.stderr
    lines = exported.stdout.splitlines()
    assert lines[-1] == f"runs/{run.name}/bundle"
    assert max(map(len, lines)) <= 80
    assert "11,877,962 parameters as trained, 11,875,082 folded" in lines
    for engine in ("onnxruntime", "openvino"):
        row, note = (line.split() for line in lines if line.startswith(engine))
        assert row[1:] == ["fp32", "verified", "47.5", "model.fp32.onnx"], exported.stdout
        assert note[1:5] == ["fp32", "golden", "images", "within"], exported.stdout
    open_bundle(run / "bundle").verify()


def test_export_says_which_tensorrt_it_took(workplace: Path, exported: subprocess.CompletedProcess[str]) -> None:
    tensorrt = pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")
    text = " ".join(exported.stdout.split())
    assert "built by tensorrt-rtx " + tensorrt.__version__ in text or "built by tensorrt " in text
    (run,) = (workplace / "runs").iterdir()
    (engine,) = [file for file in open_bundle(run / "bundle").files if file.role == "engine"]
    assert (engine.backend, engine.precision) == ("tensorrt", "fp16")
    assert engine.built_for["runtime"] in ("tensorrt", "tensorrt_rtx")
    assert engine.path in text


def test_eval_takes_the_newest_bundle(
    workplace: Path, exported: subprocess.CompletedProcess[str], command: Command
) -> None:
    (run,) = (workplace / "runs").iterdir()
    done = command("eval", "--json", "result.json", "--consistency", "2", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"taking the newest bundle: runs/{run.name}/bundle\n")
    lines = done.stdout.splitlines()
    assert lines[1].startswith("engine ")
    assert lines[-1].startswith("PASSED") and lines[-1].endswith(f": runs/{run.name}/bundle")
    assert max(map(len, lines[:-1])) <= 80
    content = (workplace / "result.json").read_bytes()
    assert content == (run / "bundle" / "eval.json").read_bytes()
    report = json.loads(content)
    assert (report["passed"], report["n_images"], report["test_set"]) == (True, 359, "as at training")
    rows = {row["backend"]: row for row in report["results"]}
    assert rows["onnxruntime"]["passed"] and rows["openvino"]["passed"]
    assert rows["onnxruntime"]["latency_runs"] >= 30


def test_predict_takes_the_newest_bundle(
    workplace: Path, exported: subprocess.CompletedProcess[str], digit_files: Sequence[Path], command: Command
) -> None:
    (run,) = (workplace / "runs").iterdir()
    done = command("predict", digit_files[0], cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"runs/{run.name}/bundle: ")
    path, answer = done.stdout.rstrip("\n").split(": ")
    assert path == str(digit_files[0])
    assert len(answer.split(", ")) == 5
    shares = [float(part.split()[1]) for part in answer.split(", ")]
    assert shares == sorted(shares, reverse=True) and sum(shares) <= 100.05


@without_gpu
def test_eval_of_an_engine_that_cannot_run_here(finished: Path, inside: Inside) -> None:
    code, output, errors = inside("eval", "--backend", "tensorrt", "--json", "tensorrt.json", cwd=finished)
    assert (code, errors) == (1, "taking the newest bundle: runs/digits/bundle\n")
    (row,) = json.loads((finished / "tensorrt.json").read_text())["results"]
    assert (row["backend"], row["precision"], row["ran"], row["passed"]) == ("tensorrt", "fp16", False, False)
    assert row["reason"]
    assert "tensorrt fp16  not run " in output
    table = " ".join(output.split())
    assert " ".join(row["reason"].split()) in table
    assert "FAILED (not run: tensorrt fp16): runs/digits/bundle" in " ".join(table.split())


@pytest.mark.usefixtures("short_latency")
def test_eval_of_too_few_images_and_of_one_engine_after_another(copy_of_bundle: Path, inside: Inside) -> None:
    code, _, errors = inside("eval", copy_of_bundle, "--backend", "onnxruntime", cwd=copy_of_bundle)
    assert code == 0, errors
    code, output, errors = inside(
        "eval",
        copy_of_bundle,
        "--backend",
        "openvino",
        "--precision",
        "bf16",
        "--json",
        "bf16.json",
        cwd=copy_of_bundle,
    )
    alone = json.loads((copy_of_bundle / "bf16.json").read_text())
    if not alone["results"][0]["ran"]:
        pytest.skip(alone["results"][0]["reason"])
    # 359 images prove no loss of less than half a point, whatever bf16 does to them.
    assert (code, errors) == (1, "")
    assert output.splitlines()[-1] == f"INCONCLUSIVE: {copy_of_bundle}"
    assert "359 images cannot tell whether top-1 drops by less than 0.5" in " ".join(output.split())
    both = json.loads((copy_of_bundle / "eval.json").read_text())
    assert [row["backend"] for row in alone["results"]] == ["openvino"]
    assert [(row["backend"], row["verdict"]) for row in both["results"]] == [
        ("onnxruntime", "holds"),
        ("openvino", "cannot tell"),
    ]
    assert (both["passed"], both["verdict"]) == (False, "cannot tell")
