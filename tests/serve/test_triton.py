"""`samdeploy export --triton`, before the real Triton server; and NVIDIA's client before ours."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samdeploy.bundle import Bundle
from samdeploy.errors import InputError
from samdeploy.export.triton.repository import write_repository
from tests.conftest import Command
from tests.serve.server import serving

ROOT = Path(__file__).parents[2]
TRITON = ROOT / "scripts" / "triton"
needs_triton = pytest.mark.skipif(not (ROOT / ".venv-triton" / "setup.txt").is_file(), reason="scripts/triton --setup")

# The wheel has no backend for ONNX Runtime: this takes its place, under the same configuration.
ENGINE = """
import numpy, onnxruntime, triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def initialize(self, arguments):
        path = f"{arguments['model_repository']}/{arguments['model_version']}/model.onnx"
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    def execute(self, requests):
        answers = []
        for request in requests:
            image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            logits = self.session.run(["logits"], {"image": image})[0]
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("logits", logits)]))
        return answers
"""
# Asks as NVIDIA's examples do.  Arguments: kind, address, model, images.npy, folder of the encoded ones.
CLIENT = """
import json, sys
from pathlib import Path
import numpy
kind, address, name, images, folder = sys.argv[1:]
if kind == "http":
    import tritonclient.http as client
else:
    import tritonclient.grpc as client
server = client.InferenceServerClient(address)
assert server.is_server_live() and server.is_server_ready() and server.is_model_ready(name)
pixels = numpy.load(images)
encoded = numpy.array([path.read_bytes() for path in sorted(Path(folder).glob("*.png"))], dtype=numpy.object_)
def ask(model, tensor, array, kind, *outputs, **options):
    given = client.InferInput(tensor, list(array.shape), kind)
    given.set_data_from_numpy(array)
    wanted = [client.InferRequestedOutput(output, **options) for output in outputs]
    try:
        found = server.infer(model, [given], outputs=wanted or None)
    except Exception as error:
        return str(error)
    said = found.get_response()
    names = [one["name"] if isinstance(one, dict) else one.name for one in
             (said["outputs"] if isinstance(said, dict) else said.outputs)]
    arrays = {output: found.as_numpy(output) for output in names}
    return {output: [one.decode() if isinstance(one, bytes) else one for one in array.ravel().tolist()]
            for output, array in arrays.items()}
found = {
    "tensors": ask(name, "image", pixels, "UINT8"),
    "best": ask(name, "image", pixels, "UINT8", "logits", class_count=2),
}
column = encoded.reshape(-1, 1)
broken = numpy.array([[b"broken"]], dtype=numpy.object_)
for model in (name + "_images", name + "_python", name + "_decode"):
    try:
        is_there = server.is_model_ready(model)
    except Exception:
        is_there = False
    if is_there:
        found[model] = ask(model, "encoded", column, "BYTES")
        found[model + " broken"] = ask(model, "encoded", broken, "BYTES")
if len(found) == 2:
    found["encoded"] = ask(name, "image", encoded, "BYTES")
print(json.dumps(found))
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def golden(digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden images as images.npy, and each as a PNG."""
    folder = tmp_path_factory.mktemp("golden")
    images, _ = digits_bundle.golden()
    np.save(folder / "images.npy", images[:8])
    for number, image in enumerate(images[:8]):
        Image.fromarray(image).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def triton(digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """A running server's ports: HTTP, gRPC."""
    repository = tmp_path_factory.mktemp("triton") / "repository"
    write_repository(digits_bundle, repository, "digits", "onnxruntime", "fp32")
    config = repository / "digits" / "config.pbtxt"
    config.write_text(config.read_text().replace('backend: "onnxruntime"', 'backend: "python"'))
    config.write_text(config.read_text().replace('default_model_filename: "model.onnx"\n', ""))
    (repository / "digits" / "1" / "model.py").write_text(ENGINE)
    http, grpc = free_port(), free_port()
    options = [f"--http-port={http}", f"--grpc-port={grpc}", "--allow-metrics=false"]
    options += ["--http-address=127.0.0.1", "--grpc-address=127.0.0.1"]
    log = repository.parent / "log"
    with log.open("w") as file:
        process = subprocess.Popen([TRITON, repository, *options], stdout=file, stderr=file, cwd="/")
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{http}/v2/health/ready", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, log.read_text()[-3000:]
                time.sleep(0.1)
        yield http, grpc
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


def ask(kind: str, port: int, golden: Path) -> dict[str, Any]:
    arguments = [kind, f"127.0.0.1:{port}", "digits", golden / "images.npy", golden]
    client = golden / "client.py"
    client.write_text(CLIENT)
    done = subprocess.run([TRITON, "--python", client, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs_triton
@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_every_model_of_a_repository_answers_as_the_bundle(
    kind: str, triton: tuple[int, int], golden: Path, digits_bundle: Bundle
) -> None:
    found = ask(kind, triton[kind == "grpc"], golden)
    images, logits = (array[:8] for array in digits_bundle.golden())
    names = [digits_bundle.spec.classes[index] for index in logits.argmax(axis=1)]
    for model in ("tensors", "digits_images", "digits_python"):
        assert np.reshape(found[model]["logits"], logits.shape) == pytest.approx(logits, abs=1e-4)
    assert found["digits_decode"]["image"] == images.ravel().tolist()
    assert found["digits_python"]["classes"] == names
    assert [text.split(":")[2] for text in found["best"]["logits"][::2]] == names  # labels.txt
    shares = np.reshape(found["digits_python"]["probabilities"], logits.shape)
    assert shares.sum(axis=1) == pytest.approx(np.ones(8), abs=1e-5)
    for model in ("digits_images", "digits_python", "digits_decode"):
        assert "not an image that samdeploy reads" in found[f"{model} broken"]


@needs_triton
def test_bench_compares_a_tritons_answers_with_the_golden_ones(
    triton: tuple[int, int], digits_bundle: Bundle, command: Command, tmp_path: Path
) -> None:
    address = f"http://127.0.0.1:{triton[0]}/v2/models/digits"
    done = command("bench", digits_bundle.root, "--url", address, "--clients", "2", "--seconds", "0.5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout


@needs_triton
@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritons_client_asks_our_server(
    kind: str, golden: Path, digits_bundle: Bundle, environment: dict[str, str]
) -> None:
    with serving(environment, f"digits={digits_bundle.root}", "--backend", "onnxruntime") as server:
        found = ask(kind, server.grpc_port if kind == "grpc" else server.port, golden)
    logits = digits_bundle.golden()[1][:8]
    for way in ("tensors", "encoded"):
        assert np.reshape(found[way]["logits"], logits.shape) == pytest.approx(logits, abs=1e-4)
    names = [digits_bundle.spec.classes[index] for index in logits.argmax(axis=1)]
    assert found["tensors"]["classes"] == names
    assert [text.split(":")[2] for text in found["best"]["logits"][::2]] == names


def test_what_triton_cannot_run_is_refused(digits_bundle: Bundle, tmp_path: Path) -> None:
    for engine, precision, text in (
        ("trt-rtx", None, "Triton runs no engines of TensorRT-RTX"),
        ("trt", None, "the bundle has nothing for trt; it has onnxruntime and openvino in fp32"),
        ("openvino", "int8", "the bundle has nothing for openvino in int8"),
    ):
        with pytest.raises(InputError, match=text):
            write_repository(digits_bundle, tmp_path, "digits", engine, precision)
    with pytest.raises(InputError, match="model name 'a/b' found"):
        write_repository(digits_bundle, tmp_path, "a/b", "onnxruntime", None)
    assert list(tmp_path.iterdir()) == []
