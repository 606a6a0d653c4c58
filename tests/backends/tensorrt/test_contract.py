"""What samdeploy calls of TensorRT exists: in TensorRT-RTX as installed, and in the bindings of TensorRT itself.

The bindings are wheels of a megabyte, fetched from the package index; the libraries behind them are replaced by empty
functions, which is enough to load them.  They show names and signatures, and nothing of an engine.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import tensorrt_contract
from tests.tensorrt_contract import PACKAGE, check

# The oldest and the newest release of each major version that pyproject.toml admits.
BINDINGS = (
    "tensorrt-cu12-bindings==10.12.0.36",
    "tensorrt-cu13-bindings==10.16.1.11",
    "tensorrt-cu13-bindings==11.0.0.114",
    "tensorrt-cu13-bindings==11.4.0.106",
)


def test_tensorrt_rtx_has_all_that_is_used() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")
    found = check(trt)
    assert found.problems == []
    # One of each way in which a use is written: the walk has seen them all.
    assert {
        "trt.Builder", "BuilderFlag.TF32", "INetworkDefinition.get_layer", "IConvolutionLayer.kernel_size_nd",
        "ParserError.desc", "IExecutionContext.execute_async_v3", "ITensor.dtype", "IProgressMonitor.step_complete",
        "ILogger.log", "IRuntimeCache.deserialize", "EngineInspector.get_engine_information",
    } <= found.uses  # fmt: skip


@pytest.mark.parametrize("bindings", BINDINGS)
def test_tensorrt_has_all_that_is_used(bindings: str, tmp_path: Path) -> None:
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "--disable-pip-version-check",
        "--retries=0",
    ]
    fetched = subprocess.run(
        [*pip, "--timeout=10", "--dest", tmp_path, bindings], capture_output=True, text=True, timeout=120, check=False
    )
    if fetched.returncode != 0:
        pytest.skip(f"the package index gives no {bindings} for this Python")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path)
    stubs = _stub_libraries(next(tmp_path.glob("tensorrt_bindings/*.so")), tmp_path / "stubs")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stubs), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, tensorrt_contract.__file__],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["version"] == bindings.split("==")[1]
    assert found["problems"] == []
    assert len(found["uses"]) > 90


def _stub_libraries(extension: Path, folder: Path) -> Path:
    """Libraries with the names and functions that the extension module wants of TensorRT, each returning null."""
    folder.mkdir()
    try:
        needed = subprocess.run(["readelf", "-d", extension], capture_output=True, text=True, check=True).stdout
        symbols = subprocess.run(
            ["nm", "-D", "--undefined-only", extension], capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        pytest.skip(f"{error.filename} is not installed: apt-get install binutils")
    names = [line.split()[-1] for line in symbols.stdout.splitlines()]
    # Those of Python begin with Py, those of the system carry a version or begin with an underscore.
    wanted = [name for name in names if "@" not in name and not name.startswith(("Py", "_"))]
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted))
    libraries = [line.split("[")[1].rstrip("]") for line in needed.splitlines() if "libnv" in line]
    assert len(wanted) > 5 and len(libraries) == 3
    for library in libraries:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / library, f"-Wl,-soname,{library}", source], check=True)
    return folder


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("def f(trt: Any): trt.BuilderFlag.FP16", "BuilderFlag.FP16 is missing"),
        ("def f(trt: Any): return trt.Calibrator()", "trt.Calibrator is missing"),
        ("def f(network: Any): return network.get_input(0).set_dynamic_range(0, 1)", "ITensor.set_dynamic_range is"),
        ("def f(builder: Any): builder.create_network(0, 1, 2)", "create_network takes (flags); 3 arguments  given"),
        ("def f(config: Any): config.set_flag()", "config.set_flag takes (flag); 0 arguments  given"),
        ("def f(layer: Any):\n    layer.num_inputs = 3", "ILayer.num_inputs cannot be set"),
        ("def f(thing: Any): thing.go()", "thing is annotated Any; enter its class"),
    ],
)
def test_a_use_that_is_not_there_is_found(
    code: str, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")
    monkeypatch.setattr(tensorrt_contract, "PACKAGE", tmp_path)
    (tmp_path / "new.py").write_text(code)
    [found] = check(trt, (tmp_path / "new.py",)).problems
    assert problem in found


def test_every_file_that_speaks_to_tensorrt_is_walked() -> None:
    """A file with a parameter `trt` uses the package."""
    speaking = {
        path
        for path in PACKAGE.rglob("*.py")
        if any(isinstance(node, ast.arg) and node.arg == "trt" for node in ast.walk(ast.parse(path.read_text())))
    }
    assert speaking <= set(tensorrt_contract.FILES)
