"""examples/label: what a scheduler starts labels the whole input, and Spark gives the labels of `samdeploy label`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="pip install 'samdeploy[label]'")

import pyarrow.parquet as pq

from samdeploy.bundle import Bundle
from tests.label.conftest import COUNT, ROWS, Label
from tests.label.read import content, table

EXAMPLES = Path(__file__).parents[2] / "examples" / "label"
SHARDS = 3


@pytest.fixture
def programs(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment in which `samdeploy` is this one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "samdeploy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m samdeploy "$@"\n')
    program.chmod(0o755)
    return {**environment, "PATH": f"{folder}:{os.environ['PATH']}"}


def run(line: list[Any], env: dict[str, str]) -> None:
    done = subprocess.run(list(map(str, line)), env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def test_the_tasks_of_a_slurm_array_do_everything(
    programs: dict[str, str], digits_bundle: Bundle, images: Path, labelled: Label, tmp_path: Path
) -> None:
    script = EXAMPLES / "slurm.sh"
    run(["bash", "-n", script], programs)
    text = script.read_text()
    assert "#SBATCH --array=0-63\n" in text and "SHARDS:-64}" in text
    for task in range(SHARDS):
        run(
            ["bash", script, digits_bundle.root, images, "--out", tmp_path / "out", "--rows", ROWS],
            {**programs, "SHARDS": str(SHARDS), "SLURM_ARRAY_TASK_ID": str(task), "SLURM_CPUS_PER_TASK": "2"},
        )
    labelled(tmp_path / "plain", batch=16)
    assert content(tmp_path / "out") == content(tmp_path / "plain")


def test_the_pods_of_an_indexed_job_do_everything(
    programs: dict[str, str], digits_bundle: Bundle, images: Path, labelled: Label, tmp_path: Path
) -> None:
    yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
    job = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text())
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = spec["template"]["spec"]
    container = pod["containers"][0]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    (line,) = container["args"]
    assert f'/{spec["completions"]}"' in line
    line = line.replace(f'/{spec["completions"]}"', f'/{SHARDS}"')
    for name, path in (("/bundle", digits_bundle.root), ("/images", images), ("/labels", tmp_path / "out")):
        assert line.count(f" {name} ") == 1
        line = line.replace(f" {name} ", f" '{path}' ")
    for index in range(SHARDS):
        run([*container["command"], f"{line} --rows {ROWS}"], {**programs, "JOB_COMPLETION_INDEX": str(index)})
    labelled(tmp_path / "plain", batch=16)
    assert content(tmp_path / "out") == content(tmp_path / "plain")


@pytest.mark.slow
def test_spark_gives_the_labels_of_the_command(
    environment: dict[str, str], digits_bundle: Bundle, images: Path, labelled: Label, tmp_path: Path
) -> None:
    pytest.importorskip("pyspark", reason="pip install pyspark")
    pytest.importorskip("pandas", reason="pip install pandas")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java: apt-get install default-jre-headless")
    run(
        [sys.executable, EXAMPLES / "spark_labels.py", digits_bundle.root, images, tmp_path / "labels"],
        {**environment, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1",
         "PYSPARK_SUBMIT_ARGS": "--master local[2] --conf spark.ui.enabled=false pyspark-shell"},
    )  # fmt: skip
    labelled(tmp_path / "plain")
    found = {
        Path(row.pop("path")).name.replace("%20", " "): row for row in pq.read_table(tmp_path / "labels").to_pylist()
    }
    assert len(found) == COUNT
    for row in table(tmp_path / "plain"):
        spark = found[row["uri"]]
        assert (spark["label"], spark["rejected"]) == (row["label"], row["rejected"])
        assert (spark["error"] is None) == (row["error"] is None)
        if row["error"] is None:
            assert spark["probability"] == pytest.approx(row["probability"], rel=1e-4)
        else:
            assert spark["probability"] is None
