"""`samdeploy doctor --collect`: one ZIP with what a report about TensorRT needs, and nothing about its sender.

samdeploy's own commands run on the digits that scikit-learn brings, each in a process of its own; what they print and
write is kept.  There are no images in it, and no names of the machine, its user or its folders.
"""

from __future__ import annotations

import getpass
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from samdeploy.backends.device.cuda import cuda_devices
from samdeploy.backends.tensorrt.library import import_runtime
from samdeploy.backends.tensorrt.session import describe_engine, open_plan
from samdeploy.bundle import open_bundle
from samdeploy.doctor.findings import Diagnosis
from samdeploy.doctor.machine import examine_machine
from samdeploy.errors import InputError, SamdeployError, first_line
from samdeploy.files import cache_folder, json_bytes, write_atomic
from samdeploy.progress import progress_bar

# A command that hangs is as good a finding as one that fails.
_LIMIT_S = 900
# Of what one command prints; a build with errors in every layer prints megabytes.
_KEPT = 200_000

_TRAIN = ("train", "digits", "--set", "training.epochs=2", "--runs", "runs")
_STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("train", _TRAIN),
    ("export-fp16", ("export", "run", "--engine", "trt", "--precision", "fp16")),
    ("export-fp32", ("export", "run", "--engine", "trt", "--precision", "fp32")),
    ("export-int8", ("export", "run", "--engine", "trt", "--precision", "int8", "--max-drop", "5")),
    ("eval", ("eval", "bundle", "--margin", "3")),
    ("bench", ("bench", "bundle", "--seconds", "0.3", "--json", "bench.json")),
    ("doctor", ("doctor", "bundle", "--json")),
)


def collect_report(out: Path) -> str:
    """Run train, export, eval and bench on digits, and write the ZIP.

    Returns:
        What is in it, for people.

    Raises:
        InputError: `out` does not end in .zip, or its folder does not exist.
    """
    if out.suffix.lower() != ".zip":
        raise InputError(f"--collect {out}: a name that ends in .zip expected")
    if not out.absolute().parent.is_dir():
        raise InputError(f"--collect {out}: no such folder: {out.absolute().parent}")
    with tempfile.TemporaryDirectory(prefix="samdeploy-collect-") as folder:
        parts = _collect(Path(folder))
        clean = _cleaner(Path(folder))
        with zipfile.ZipFile(Path(folder, "report.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in parts.items():
                archive.writestr(name, clean(content))
        write_atomic(out, Path(folder, "report.zip").read_bytes())
    failed = [name for name, content in parts.items() if name.startswith("commands/") and json.loads(content)["exit"]]
    ended = f"; did not end with exit code 0: {', '.join(Path(name).stem for name in failed)}" if failed else ""
    return f"{out}: {out.stat().st_size >> 10} KiB, {len(parts)} files{ended}; attach it to your report"


def _collect(folder: Path) -> dict[str, str]:
    """Names in the ZIP -> their contents."""
    found = {"machine.json": json_bytes(Diagnosis(examine_machine(), None).to_json()).decode()}
    with progress_bar("collecting", len(_STEPS)) as advance:
        for name, arguments in _STEPS:
            advance(0, name)
            found[f"commands/{name}.json"] = _run(folder, arguments)
            _link_results(folder)
            advance(1, name)
    root = folder / "bundle"
    for file in (root / "manifest.json", root / "eval.json", root / "headroom.json", folder / "bench.json"):
        if file.is_file():
            found[f"results/{file.name}"] = file.read_text(encoding="utf-8")
    if (root / "manifest.json").is_file():
        found.update(_inspected(root))
    return found


def _run(folder: Path, arguments: tuple[str, ...]) -> str:
    """What a command printed, its exit code and its seconds, as JSON."""
    line = [sys.executable, "-m", "samdeploy.cli", *arguments]
    start = time.monotonic()
    try:
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=_LIMIT_S, errors="replace")
        code, out, errors = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        code, out, errors = -1, "", f"stopped after {_LIMIT_S} s"
    report: dict[str, Any] = {"command": "samdeploy " + " ".join(arguments), "exit": code}
    report |= {"seconds": round(time.monotonic() - start, 2), "stdout": out[-_KEPT:], "stderr": errors[-_KEPT:]}
    return json.dumps(report, indent=1)


def _link_results(folder: Path) -> None:
    """Names without a date for the run and its bundle, so that the commands read alike on every machine."""
    for run in folder.glob("runs/digits-*"):
        for name, target in (("run", run), ("bundle", run / "bundle")):
            if target.exists() and not (folder / name).exists():
                (folder / name).symlink_to(target)


def _inspected(root: Path) -> Iterator[tuple[str, str]]:
    """What the engine inspector says of each plan, or why it cannot be asked."""
    bundle = open_bundle(root)
    for file in bundle.select("engine", backend="tensorrt"):
        name = f"inspector/{Path(file.path).stem}"
        count, why = cuda_devices()
        if not count:
            yield f"{name}.txt", f"not inspected: {why}"
            continue
        try:
            trt = import_runtime((file.built_for or {}).get("runtime", ""))
            runtime, engine = open_plan(trt, bundle.read(file), file.path)
            yield f"{name}.json", describe_engine(trt, engine, 8)
            del engine, runtime
        except SamdeployError as error:
            yield f"{name}.txt", first_line(error)


def _cleaner(folder: Path) -> Callable[[str], str]:
    """Replaces names of this machine, its user and its folders."""
    names = {str(folder.resolve()): "FOLDER", str(folder): "FOLDER", str(Path.home()): "HOME", sys.prefix: "PREFIX"}
    names |= {str(cache_folder()): "CACHE", platform.node(): "MACHINE", _user(): "USER"}
    # Longer ones first: a home folder holds the user's name.
    known = [name for name in sorted(names, key=len, reverse=True) if len(name) > 2]

    def clean(text: str) -> str:
        for name in known:
            edge = r"(?<![A-Za-z0-9])" if name[0].isalnum() else ""
            text = re.sub(edge + re.escape(name) + r"(?![A-Za-z0-9])", names[name], text)
        return text

    return clean


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a uid without a name
        return ""
