"""`samdeploy label --engine ray` on a real cluster of two nodes on this machine."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="pip install 'samdeploy[label]'")
pytest.importorskip("ray", reason="pip install 'samdeploy[label,ray]'")
pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[onnxruntime]'")

import ray
from ray.cluster_utils import Cluster

from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, InputError
from samdeploy.label.options import LabelOptions
from samdeploy.label.ray import Wanted, label_on_ray
from tests.conftest import Command
from tests.label.conftest import COUNT, ROWS, Label
from tests.label.read import content, table

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes, each with more processors than actors take."""
    # What a driver that Ray starts by itself would set.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=4)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def actors() -> list[int]:
    """Process ids of the actors that live: Ray names its processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"ray::_Actor"):
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def many(images: Path, tmp_path: Path) -> Path:
    """A list of 40 times the images."""
    path = tmp_path / "many.txt"
    path.write_text("".join(f"{images}/image {number}.png\n" for _ in range(40) for number in range(COUNT)))
    return path


def test_a_lost_node_and_a_lost_actor_lose_nothing(
    cluster: Cluster, digits_bundle: Bundle, labelled: Label, many: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    labelled(tmp_path / "plain", many)
    options = LabelOptions(str(many), tmp_path / "ray", ROWS, 4)
    found: list[Any] = []
    wanted = Wanted(digits_bundle.root, "onnxruntime", workers=2)
    running = threading.Thread(target=lambda: found.append(label_on_ray(wanted, options)[0]))
    running.start()
    parts = len(list((tmp_path / "plain").glob("part-*")))

    def wait_for(count: int) -> None:
        end = time.monotonic() + 300
        while len(list((tmp_path / "ray").glob("part-*"))) < count:
            assert running.is_alive() and time.monotonic() < end
            time.sleep(0.01)

    wait_for(parts // 8)
    before = actors()
    assert len(before) == 2  # one on each node
    cluster.remove_node(cluster.list_all_nodes()[1])
    wait_for(parts // 2)
    with suppress(ProcessLookupError):
        os.kill(next(pid for pid in actors() if pid in before), 9)
    running.join(300)
    assert found and found[0].whole and (found[0].done, found[0].own) == (40 * COUNT, 40 * COUNT)
    assert capfd.readouterr().err.count("a worker was lost at ") == 2
    assert content(tmp_path / "ray") == content(tmp_path / "plain")
    assert [row["row"] for row in table(tmp_path / "ray")] == list(range(40 * COUNT))


def test_it_goes_on_where_a_plain_labelling_ended(
    cluster: Cluster, digits_bundle: Bundle, labelled: Label, images: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(images.parent)  # relative paths are the driver's
    labelled(tmp_path / "plain", images.name, logits="float16")
    labelled(tmp_path / "ray", images.name, logits="float16")
    for number in (0, 3):
        (tmp_path / "ray" / f"part-00000{number}.parquet").unlink()
    options = LabelOptions(images.name, tmp_path / "ray", ROWS, 4, logits="float16")
    found, classes = label_on_ray(Wanted(digits_bundle.root, "onnxruntime", workers=9), options)
    assert found.whole and found.own == 2 * ROWS and classes == digits_bundle.spec.classes
    assert content(tmp_path / "ray") == content(tmp_path / "plain")
    other = LabelOptions(images.name, tmp_path / "ray", ROWS, 5, logits="float16")
    with pytest.raises(InputError, match="batch: 4 -> 5"):
        label_on_ray(Wanted(digits_bundle.root, "onnxruntime"), other)


def test_what_fails_in_an_actor_is_said(cluster: Cluster, copy_of_bundle: Path, images: Path, tmp_path: Path) -> None:
    options = LabelOptions(str(images), tmp_path / "out", ROWS)
    with pytest.raises(BackendUnavailable, match="CUDA"):
        label_on_ray(Wanted(copy_of_bundle, "onnxruntime", "cuda"), options)
    with pytest.raises(InputError, match="--features: pytorch fp32 found"):
        label_on_ray(Wanted(copy_of_bundle, "pytorch"), LabelOptions(str(images), tmp_path / "out", features="float16"))
    assert not (tmp_path / "out" / "_label.json").exists()


def test_the_command_starts_ray_and_ends_it(
    command: Command, environment: dict[str, str], digits_bundle: Bundle, images: Path, labelled: Label, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    arguments = ("label", digits_bundle.root, images, "--out", tmp_path / "out", "--rows", str(ROWS), "--batch", "4")
    arguments += ("--engine", "ray", "--workers", "2", "--backend", "onnxruntime")
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "53 of 53 rows in 6 of 6 parts: 51 labelled, 2 errors" in done.stderr
    labelled(tmp_path / "plain")
    assert content(tmp_path / "out") == content(tmp_path / "plain")
    assert json.loads((tmp_path / "out" / "_summary.json").read_text())["rows"] == COUNT
    assert not actors()
    monkeypatch.setitem(environment, "RAY_ADDRESS", "nowhere:1")
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 1 and "Ray cannot be reached, or started here" in done.stderr
    done = command("label", digits_bundle.root, images, "--out", tmp_path / "out", "--workers", "2", cwd=tmp_path)
    assert done.returncode == 2 and "--workers, --gpus: for --engine ray" in done.stderr
