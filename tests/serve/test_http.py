"""`samdeploy serve`, asked by many clients at once over loopback."""

from __future__ import annotations

import gzip
import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy import Classifier
from samdeploy.bundle import Bundle
from tests.cli.typed import Inside
from tests.conftest import Command
from tests.serve.server import Served, serving

DIGITS, MAPS = "/v2/models/digits", "/v2/models/maps/versions/3"
CLIENTS = 24


def binary_request(images: np.ndarray, *outputs: dict[str, object]) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "image", "datatype": "UINT8", "shape": images.shape}
    tensor["parameters"] = {"binary_data_size": images.nbytes}
    front = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    return front + images.tobytes(), {"Inference-Header-Content-Length": str(len(front))}


def test_about_health_and_metadata(served: Served, digits_bundle: Bundle) -> None:
    status, about = served.json("GET", "/v2")
    assert (status, about["name"], about["extensions"]) == (200, "samdeploy", ["binary_tensor_data", "classification"])
    assert served.json("GET", "/v2/health/live") == (200, {"live": True})
    assert served.json("GET", "/v2/health/ready") == (200, {"ready": True})
    assert served.json("GET", MAPS + "/ready") == (200, {"name": "maps", "ready": True})
    status, model = served.json("GET", DIGITS)
    size = digits_bundle.spec.preprocessing
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, size.height, size.width, 3]}]
    assert model["outputs"][0] == {"name": "logits", "datatype": "FP32", "shape": [-1, 10]}
    assert served.json("GET", "/v2/models")[1]["models"][0] == {"name": "digits", "version": "1", "ready": True}
    status, config = served.json("GET", DIGITS + "/config")
    assert config["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "dims": [size.height, size.width, 3]}]
    assert config["parameters"] == {"precision": {"string_value": "fp32"}}
    status, document = served.json("GET", "/openapi.json")
    assert (status, set(document["paths"]) >= {DIGITS + "/infer", MAPS + "/predict", "/metrics"}) == (200, True)


def test_golden_images_have_their_logits(served: Served, digits_bundle: Bundle) -> None:
    images, logits = digits_bundle.golden()
    for count in (1, len(images), 3 * len(images)):  # the last are more than a batch
        chosen = np.concatenate([images] * 3)[:count]
        body, headers = binary_request(chosen, {"name": "logits", "parameters": {"binary_data": True}})
        status, content, about = served.ask("POST", DIGITS + "/infer", body, headers)
        assert status == 200
        front = int(about["Inference-Header-Content-Length"])
        found = np.frombuffer(content[front:], "<f4").reshape(count, -1)
        assert np.allclose(found, np.concatenate([logits] * 3)[:count], atol=1e-3)
        assert json.loads(content[:front])["outputs"][0]["shape"] == [count, 10]


def test_images_are_answered_as_by_the_classifier(
    served: Served, digits_bundle: Bundle, digit_files: Sequence[Path]
) -> None:
    with Classifier.open(digits_bundle.root, "onnxruntime") as classifier:
        expected = [answer.to_json() for answer in classifier.predict_batch(digit_files)]
    for path, answer in zip(digit_files, expected, strict=True):
        status, found = served.json("POST", DIGITS + "/predict", path.read_bytes())
        assert (status, found["label"], found["rejected"]) == (200, answer["label"], answer["rejected"])
        assert found["probability"] == pytest.approx(answer["probability"], rel=1e-5)
    parts = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="%s"\r\n\r\n%s\r\n'
        % (path.name.encode(), path.read_bytes())
        for path in digit_files
    )
    form = {"Content_Type": "Multipart/Form-Data; boundary=x"}
    status, found = served.json("POST", DIGITS + "/predict?top=2", parts + b"--x\r\n", **form)
    assert (status, found["error"]) == (400, "the form is cut short: its last boundary is missing")
    for name, files in (("b", parts), ("", b"")):
        text = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n1.png\r\n' % name.encode()
        status, found = served.json("POST", DIGITS + "/predict", text + files + b"--x--\r\n", **form)
        assert (status, found["error"]) == (400, f"form: a text found in field {name!r}; send each image as a file")
    parts = parts.replace(b'filename="0.png"', b"filename*=UTF-8''0%2Epng")  # as urllib3 1 names files
    status, found = served.json("POST", DIGITS + "/predict?top=2", parts + b"--x--\r\n", **form)
    assert [one["image"] for one in found["predictions"]] == [path.name for path in digit_files]
    assert [one["label"] for one in found["predictions"]] == [answer["label"] for answer in expected]
    assert {len(one["top"]) for one in found["predictions"]} == {2}


def test_a_map_of_a_class(served: Served, cam_bundle: Bundle) -> None:
    file = io.BytesIO()
    Image.fromarray(cam_bundle.golden()[0][0]).save(file, "PNG")
    for query, mode, label in (("", "RGB", None), ("?layer=map&class=3", "RGBA", "Größe"), ("?class=e", "RGB", "e")):
        status, png, headers = served.ask("POST", MAPS + "/explain" + query, file.getvalue())
        assert status == 200
        drawn = Image.open(io.BytesIO(png))
        # Upright and whole, as large as is good for the eye.
        assert (drawn.mode, drawn.height * 64) == (mode, drawn.width * 96)
        assert label in (None, json.loads(headers["X-Class"]))
    status, png, _ = served.ask("POST", DIGITS + "/explain?layer=image", file.getvalue())
    whole = np.asarray(Image.open(io.BytesIO(png)))
    step = len(whole) // 96
    assert np.array_equal(whole[::step, ::step], cam_bundle.golden()[0][0])
    assert served.json("POST", MAPS + "/explain?layer=image", b"GET OUT")[0] == 400
    assert served.json("POST", MAPS + "/explain?layer=all", b"")[1]["error"].startswith("layer: 'all' found, 'map' or")
    assert served.json("POST", MAPS + "/explain?class=none", file.getvalue())[1]["error"].startswith(
        "class: 'none' found"
    )


def jpeg(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        (DIGITS + "/predict", b"", 400, "image: the file is empty"),
        (DIGITS + "/predict", b"GET OUT", 400, "image: not an image that samdeploy reads"),
        (DIGITS + "/predict", jpeg(40, 30)[:-200], 400, "image: damaged or truncated"),
        (DIGITS + "/predict", jpeg(400, 300), 400, "image: too many pixels, scale it down first (400x300"),
        (DIGITS + "/predict?top=0", jpeg(4, 4), 400, "top: '0' found, a number from 1 on expected; all classes are 10"),
        (DIGITS + "/predict?timeout=soon", jpeg(4, 4), 400, "parameters.timeout: 'soon' found"),
        (DIGITS + "/predict", bytes(2_000_001), 413, "Content-Length 2000001 found, at most 2000000 bytes expected"),
        (DIGITS + "/infer", b"{", 400, "the request is not JSON"),
        ("/v2/models/none/infer", b"", 404, "no model 'none' is served here; there are: digits, maps"),
        ("/v2/models/maps/versions/1/infer", b"", 404, "no version '1' of 'maps' is served here; there are: 3"),
        ("/v2/repository/index", b"", 404, "POST /v2/repository/index: Not Found; /openapi.json lists"),
        ("/v2/health/live", b"", 405, "POST /v2/health/live: Method Not Allowed; GET, HEAD expected"),
        ("/page/../../etc/passwd", b"", 404, "POST /page/../../etc/passwd: Not Found"),
    ],
)
def test_what_gets_no_answer(served: Served, path: str, body: bytes, status: int, text: str) -> None:
    found, answer = served.json("POST", path, body)
    assert (found, list(answer)) == (status, ["error"])
    assert answer["error"].startswith(text)


def test_a_compressed_body_is_refused(served: Served) -> None:
    """tritonclient can compress what it sends."""
    status, answer = served.json("POST", DIGITS + "/infer", gzip.compress(b"{}"), Content_Encoding="gzip")
    assert (status, answer["error"]) == (415, "Content-Encoding 'gzip' found; send the body as it is")


def test_a_request_that_is_too_late(served: Served, digits_bundle: Bundle) -> None:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 0, 0, 3], "data": []}
    size = digits_bundle.spec.preprocessing
    tensor |= {"shape": [1, size.height, size.width, 3], "data": [0] * (size.height * size.width * 3)}
    body = json.dumps({"inputs": [tensor], "parameters": {"timeout": 1}}).encode()
    found = [served.json("POST", DIGITS + "/infer", body)[0] for _ in range(5)]
    assert 504 in found
    assert served.metric("samdeploy_requests_total", 'code="504"') == found.count(504)


def test_many_clients_at_once_good_and_bad(served: Served, digit_files: Sequence[Path]) -> None:
    examples = [path.read_bytes() for path in digit_files]
    before = served.metric("samdeploy_requests_total", 'endpoint="predict"')

    def client(number: int) -> list[tuple[int, object]]:
        found = []
        connection = served.connect()
        for place in range(10):
            digit = (number + place) % 6
            connection.request("POST", DIGITS + "/predict", examples[digit] if digit < 5 else b"broken")
            answer = connection.getresponse()
            content = json.loads(answer.read())
            found.append((digit, content["label"] if answer.status == 200 else answer.status))
        connection.close()
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        for found in pool.map(client, range(CLIENTS)):
            assert [answer for _, answer in found] == [str(digit) if digit < 5 else 400 for digit, _ in found]
    assert served.metric("samdeploy_requests_total", 'endpoint="predict"') == before + 10 * CLIENTS


def test_metrics_say_what_was_answered(served: Served, digit_files: Sequence[Path]) -> None:
    before = served.metric("samdeploy_answers_total", 'model="digits"', 'label="3"')
    served.ask("POST", DIGITS + "/predict", digit_files[3].read_bytes())
    assert served.metric("samdeploy_answers_total", 'model="digits"', 'label="3"') == before + 1
    assert served.metric("samdeploy_ready", 'model="maps"') == 1
    assert 0 <= served.metric("samdeploy_golden_difference", 'model="digits"') < 1e-4
    answers = served.metric("samdeploy_answers_total", 'model="digits"')
    assert served.metric("samdeploy_batch_size_sum", 'model="digits"') == answers


def test_bench_of_the_server(
    served: Served, digits_bundle: Bundle, cam_bundle: Bundle, inside: Inside, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{served.port}{DIGITS}"
    options = ("--clients", "1,3", "--seconds", "0.2", "--json", tmp_path / "found.json")
    code, output, errors = inside("bench", digits_bundle.root, "--url", url, *options, cwd=tmp_path)
    assert code == 0, errors
    assert "answers  as the bundle's: golden logits within" in output
    assert max(map(len, output.splitlines())) <= 80
    found = json.loads((tmp_path / "found.json").read_text())
    assert [point["clients"] for point in found["points"]] == [1, 3]
    assert found["precision"] == "fp32"  # said by the server: the bundle has FP16 too
    assert all(point["answers"] > 0 == point["failed"] for point in found["points"])
    for arguments, status, text in (
        ((cam_bundle.root, "--url", url), 2, "--url: a model with the tensors"),
        ((digits_bundle.root, "--url", url + "x"), 1, f"(GET {DIGITS}x gave 404 "),
        ((digits_bundle.root, "--url", url, "--clients", "0"), 2, "--clients: 0 found, numbers from 1 on expected"),
        ((digits_bundle.root, "--url", url, "--clients", "two"), 2, "--clients: 'two' found, numbers expected"),
        ((digits_bundle.root, "--url", url, "--api-key-file", "no"), 2, "--api-key-file no: cannot be read"),
        ((digits_bundle.root, "--url", "localhost"), 2, "--url: 'localhost' found, an address such as http://"),
        ((digits_bundle.root, "--url", "http://127.0.0.1:9/v2/models/x"), 1, "127.0.0.1:9: GET /v2 failed ("),
    ):
        code, _, errors = inside("bench", *arguments, *(() if "--clients" in arguments else options), cwd=tmp_path)
        assert code == status, errors
        assert text in errors


def test_slow_heads_keys_and_a_full_queue(
    copy_of_bundle: Path, environment: dict[str, str], tmp_path: Path, digit_files: Sequence[Path]
) -> None:
    (tmp_path / "key").write_text("a key of 16 and more characters\n")
    options = ("--api-key-file", tmp_path / "key", "--header-seconds", "0.3", "--queue", "40", "--body-seconds", "1")
    with serving(environment, copy_of_bundle, *options) as served:
        path, body = "/v2/models/copy/predict", digit_files[2].read_bytes()
        key = {"Authorization": "Bearer a key of 16 and more characters"}
        assert served.ask("POST", path, body)[0] == 401
        assert served.ask("POST", path, body, {"Authorization": "Bearer a key of 16 and more character"})[0] == 401
        assert served.ask("GET", "/page/models")[0] == served.ask("GET", "/metrics")[0] == 401
        assert served.ask("GET", "/v2/health/ready")[0] == served.ask("GET", "/")[0] == 200
        assert served.ask("POST", path, body, key)[0] == 200
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
            client.sendall(b"POST /v2 HTTP/1.1\r\nHost")
            begin = time.monotonic()
            assert client.recv(1) == b""  # closed
            assert time.monotonic() - begin < 10
        # One that does not read its answers, and one that sends too many requests before it does.
        for count in (900, 3000):
            with socket.socket() as client, suppress(ConnectionError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the rest waits in the server
                client.settimeout(20)
                client.connect(("127.0.0.1", served.port))
                client.sendall(b"GET /page/page.js HTTP/1.1\r\nHost: x\r\n\r\n" * count)
                time.sleep(3)
                while client.recv(1 << 20):
                    pass
        # More images at once than may wait: of many requests some are refused, of one request it is.
        images = np.zeros((41, *Classifier.open(copy_of_bundle).bundle.spec.input.shape[1:]), np.uint8)

        def infer(count: int) -> tuple[int, str | None]:
            content, headers = binary_request(images[:count])
            status, _, about = served.ask("POST", "/v2/models/copy/infer", content, headers | key)
            return status, about.get("Retry-After")

        with ThreadPoolExecutor(12) as clients:
            assert set(clients.map(infer, [40] * 24)) == {(200, None), (503, "1")}
        assert infer(41) == (413, None)


def test_a_log_on_a_full_disk(digits_bundle: Bundle, environment: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "samdeploy", "serve", f"digits={digits_bundle.root}", "--port", str(port)]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(command, env=dict(environment), stdout=full, stderr=full)
    try:
        served = Served(process, port, 0)  # type: ignore[arg-type]
        deadline, status = time.monotonic() + 120, 0
        while status != 200 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
            with suppress(OSError):
                status = served.ask("GET", "/v2/health/ready")[0]
        time.sleep(0.5)
        assert served.ask("POST", DIGITS + "/predict", b"no image")[0] == 400
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_end(
    number: signal.Signals, digits_bundle: Bundle, environment: dict[str, str], digit_files: Sequence[Path]
) -> None:
    """Not ready at once, still answering for a while, exit code 0."""
    with serving(environment, f"digits={digits_bundle.root}", "--drain-seconds", "60") as served:
        served.process.send_signal(number)
        time.sleep(0.3)
        if number == signal.SIGHUP:  # a closed terminal may send two by itself
            served.process.send_signal(number)
        assert served.json("GET", "/v2/health/ready") == (503, {"ready": False})
        assert served.json("GET", "/v2/health/live")[0] == 200
        assert served.json("POST", DIGITS + "/predict", digit_files[1].read_bytes())[1]["label"] == "1"
        served.process.send_signal(signal.SIGTERM)  # asked again, it does not wait
        served.process.wait(30)


def test_what_does_not_start(digits_bundle: Bundle, command: Command, served: Served, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("short")
    root = digits_bundle.root
    for arguments, text in (
        ((tmp_path / "none",), f"{tmp_path / 'none'}: "),
        (
            (root, "--port", str(served.port)),
            f"cannot listen on 127.0.0.1:{served.port}: the port is taken; ",
        ),
        (
            (root, "--host", "192.0.2.1", "--port", "8777"),
            "cannot listen on 192.0.2.1:8777: not an address of this machine; ",
        ),
        ((root, "--host", "a..b"), "--host a..b: no such host; "),
        ((root, "--host", "a" * 64), f"--host {'a' * 64}: no such host; "),
        (
            (root, "--grpc-port", str(served.port)),
            f"--grpc-port: cannot listen on 127.0.0.1:{served.port}: the port ",
        ),
        ((root, "--timeout", "1", "--delay-ms", "1000"), "--delay-ms: 1000 found, less than 1000 (--timeout) expected"),
        ((root, root), ": two bundles would be served as "),
        ((f"a:={root}",), "version '' found; a letter or digit"),
        ((f"a b={root}",), "name 'a b' found; a letter or digit, then also . _ - expected"),
        (
            (root, "--api-key-file", tmp_path / "key"),
            "key: 5 characters found, at least 16 characters of ASCII expected",
        ),
    ):
        done = command("serve", *arguments, *(() if "--port" in arguments else ("--port", "0")), cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert text in done.stderr and done.stderr.count("\n") == 1
    done = command("serve", root, "--timeout", "inf", cwd=tmp_path)
    assert (done.returncode, "for '--timeout': " in done.stderr) == (2, True)
