"""Neither runtime reports to its maker through samdeploy, unless the user wants it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from samdeploy.backends import availability
from samdeploy.bundle import Bundle
from tests import packages

PREDICT = """
import sys
from samdeploy import Classifier
bundle, image, *backends = sys.argv[1:]
for backend in backends:
    with Classifier.open(bundle, backend) as classifier:
        classifier.predict(image)
"""
# Stands in for Intel's package and notes what it is asked to send.
RECORDER = """
from pathlib import Path
class Telemetry:
    def __init__(self, *args, **options): self.backend = type("Backend", (), {"app_name": options.get("app_name")})
    def send_event(self, *event): Path(__file__).with_name("sent").write_text(str(event))
"""


def child(environment: dict[str, str], home: Path, *arguments: str | Path, **settings: str) -> None:
    """Run Python in a fresh home, where neither a setting nor a sign of CI switches telemetry off."""
    off = {"ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME"}
    kept = {name: value for name, value in environment.items() if name not in off}
    line = [sys.executable, *map(str, arguments)]
    if shutil.which("strace"):  # IPv4 and IPv6; a name server that the system caches for is asked through a socket file
        line = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(home / "calls"), *line]
    subprocess.run(line, env={**kept, "HOME": str(home), **settings}, timeout=120, check=True)


def test_no_id_is_written_and_no_name_server_asked(
    digits_bundle: Bundle, digit_files: Sequence[Path], environment: dict[str, str], tmp_path: Path
) -> None:
    """The files are looked at everywhere, the network where strace is installed."""
    backends = [name for name in ("onnxruntime", "openvino") if availability(name) is None]
    child(environment, tmp_path, "-c", PREDICT, digits_bundle.root, digit_files[0], *backends)
    calls = tmp_path / "calls"
    assert [path.name for path in tmp_path.rglob("*") if path != calls] == []
    if not calls.exists():
        pytest.skip(f"only the files were looked at: {packages.lacking('optional')}")
    assert [line for line in calls.read_text().splitlines() if "AF_INET" in line] == []


@pytest.mark.parametrize("chosen", ["0", "1"])
def test_a_value_that_the_user_set_is_kept(chosen: str, environment: dict[str, str], tmp_path: Path) -> None:
    code = f"import os, samdeploy; assert os.environ['ORT_DISABLE_TELEMETRY'] == {chosen!r}"
    child(environment, tmp_path, "-c", code, ORT_DISABLE_TELEMETRY=chosen)


@pytest.mark.parametrize("consent", ["", "0", "1"])
def test_openvino_reports_only_with_consent(consent: str, environment: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install 'samdeploy[openvino]'")
    package, home = tmp_path / "openvino_telemetry", tmp_path / "home"
    (package / "backend").mkdir(parents=True)
    (home / "intel").mkdir(parents=True)
    (package / "__init__.py").write_text(RECORDER)
    (package / "backend" / "__init__.py").write_text("backend_ga4 = None")
    if consent:
        (home / "intel" / "openvino_telemetry").write_text(consent)
    path = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    code = "import sys, samdeploy.backends.openvino.session; assert ('openvino_telemetry' in sys.modules) is ("
    child(environment, home, "-c", code + repr(consent == "1") + ")", PYTHONPATH=path)
    assert (package / "sent").exists() is (consent == "1")
