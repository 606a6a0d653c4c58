"""samdeploy where little of the usual surroundings is there: no home, no name, no UTF-8, no standard streams."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from samdeploy.backends.user_cache import read_cache, write_cache
from samdeploy.bundle import Bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import RecipeError
from samdeploy.files import cache_folder, expanded
from samdeploy.train.recipe.load import load_recipe
from tests.cli.typed import TINY, assert_one_line

# All commands in one process: importing torch anew for each would take most of the time.
CHAIN = """
import sys
from samdeploy.cli import main
lines = [[]]
for word in sys.argv[1:]:
    lines.append([]) if word == "then" else lines[-1].append(word)
for line in lines:
    sys.argv = ["samdeploy", *line]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (line, end.code)
"""
WHOLE_WAY = (
    ["train", "digits", *TINY],
    ["export", "--engine", "onnxruntime"],
    ["eval", "--backend", "onnxruntime", "--consistency", "0", "--report", "report"],
    ["predict", "--json", "image.png"],
    ["explain", "image.png"],
)
# Below /proc nobody can make anything, root neither.
NO_HOME = "/proc/home"
BARE = {
    "TMPDIR": "/proc",
    "PYTHONIOENCODING": "ascii",
    "COLUMNS": "1",
    "TERM": "dumb",
    "NO_COLOR": "1",
}
NAMELESS = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for everybody with an image in it; not pytest's own, which other users may not enter."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        work.chmod(0o777)
        Image.new("RGB", (9, 7), "teal").save(work / "image.png")
        yield work


def chain(*lines: list[str]) -> list[str]:
    """Arguments of `CHAIN`."""
    return [*lines[0], *(word for line in lines[1:] for word in ("then", *line))]


def bare(environment: dict[str, str], **more: str) -> dict[str, str]:
    """`env -i`, but for the path of programs and of this package, and how threads wait."""
    threads = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}  # as in conftest.py
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": environment["PYTHONPATH"], **threads, **more}


def nameless(settings: dict[str, str]) -> list[str]:
    """A Python of a user without a name; [] where there is none that can run samdeploy: only root changes users."""
    # The interpreter of an environment below /root is out of this user's reach.
    usual = shutil.which("python{}.{}".format(*sys.version_info), path="/usr/bin")
    for python in filter(None, (sys.executable, usual)):
        line = [*NAMELESS, python, "-c", "import samdeploy, torch"]
        if shutil.which("setpriv") and subprocess.run(line, env=settings, cwd="/", capture_output=True).returncode == 0:
            return [*NAMELESS, python]
    return []


def assert_quiet(done: subprocess.CompletedProcess[bytes]) -> None:
    error = done.stderr.decode()
    assert done.returncode == 0, error
    assert "Traceback" not in error and "atplotlib" not in error, error


@pytest.mark.slow
def test_the_whole_way_with_little_around_it(folder: Path, environment: dict[str, str]) -> None:
    """A user without name and home; umask 077, which all files follow; standard input closed.

    Where strace is installed nothing is seen to ask a name server.
    """
    settings = bare(environment, **BARE)
    settings["PYTHONPATH"] = os.pathsep.join(
        [settings["PYTHONPATH"], *(path for path in sys.path if path.endswith("-packages"))]
    )
    python = nameless(settings)
    if not python:
        python, settings["HOME"] = [sys.executable], NO_HOME
    if shutil.which("strace"):
        python = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", "calls",
                  *python]  # fmt: skip
    line = ["sh", "-c", 'umask 077; exec "$@" <&-', "sh", *python, "-c", CHAIN, *chain(*WHOLE_WAY)]
    done = subprocess.run(line, cwd=folder, env=settings, capture_output=True, timeout=600, check=False)
    assert_quiet(done)
    (answer,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{"))
    assert answer["image"] == "image.png" and len(answer["top"]) == 5
    made = [path for path in folder.rglob("*") if path.name not in ("image.png", "calls")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in made if path.is_dir()} == {0o700}
    if (folder / "calls").exists():
        assert [line for line in (folder / "calls").read_text().splitlines() if "AF_INET" in line] == []


def test_a_home_that_cannot_be_made(digits_bundle: Bundle, folder: Path, environment: dict[str, str]) -> None:
    bundle = str(digits_bundle.root)
    bench = ["bench", bundle, "--backend", "onnxruntime", "--seconds", "0.05", "--batch", "1,3"]
    line = [sys.executable, "-c", CHAIN, *chain(["explain", bundle, "image.png"], bench)]
    settings = bare(environment, **BARE, HOME=NO_HOME)
    assert_quiet(subprocess.run(line, cwd=folder, env=settings, capture_output=True, timeout=120, check=False))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(
    closed: str, digits_bundle: Bundle, digit_files: Sequence[Path], environment: dict[str, str]
) -> None:
    line = [sys.executable, "-m", "samdeploy", "predict", "--json", str(digits_bundle.root), str(digit_files[3])]
    script = ["sh", "-c", f'exec "$@" {closed}', "sh", *line]
    done = subprocess.run(script, env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == (2 if ">&-" in closed.replace("2>&-", "") else 0)
    if closed == ">&-":
        assert_one_line(
            done.stderr.decode().split("\n", 1)[1], "output: Bad file descriptor; standard output is closed"
        )
    if closed in ("<&-", "2>&-"):
        assert json.loads(done.stdout)["label"] == "3"  # and nothing of what is for standard error
    else:
        assert done.stdout == b""


def test_limit_on_file_sizes_is_named(
    digits_bundle: Bundle, digit_files: Sequence[Path], environment: dict[str, str]
) -> None:
    line = [sys.executable, "-m", "samdeploy", "predict", str(digits_bundle.root), str(digit_files[3])]
    script = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", *line]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert (
        "not run with onnxruntime: the graph cannot be held in memory (File too large); raise the limit" in done.stderr
    )
    assert "not run with tensorrt" not in done.stderr


@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        # Without Python's own remedies the names of files are ASCII, too.
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_json_is_utf8_and_text_is_readable_whatever_the_terminal(
    settings: dict[str, str], copy_of_bundle: Path, digit_files: Sequence[Path], environment: dict[str, str]
) -> None:
    manifest = copy_of_bundle / MANIFEST
    content = json.loads(manifest.read_text())
    content["model"]["classes"] = [f"größe 猫 {number}" for number in range(10)]
    manifest.write_text(json.dumps(content))
    image = copy_of_bundle.parent / "naïve.png"
    shutil.copy(digit_files[3], image)
    lines = [["predict", "--top", "1", *more, str(copy_of_bundle), str(image)] for more in ([], ["--json"])]
    done = subprocess.run(
        [sys.executable, "-c", CHAIN, *chain(*lines)],
        env={**environment, **settings}, capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    text, answer = done.stdout.splitlines()
    assert b"\\u732b 3 " in text
    assert {key: json.loads(answer)[key] for key in ("image", "label")} == {"image": str(image), "label": "größe 猫 3"}


def test_locale_is_named_that_has_no_letters_for_a_class(environment: dict[str, str], tmp_path: Path) -> None:
    for name in ("Cat 🐱", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name / "1.png")
    line = [sys.executable, "-m", "samdeploy", "data", "images"]
    settings = {**environment, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(line, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "have names that this locale's encoding (ascii) lacks: Cat \\xf0\\x9f" in done.stderr
    assert "Set LC_ALL=C.UTF-8" in done.stderr and "unprintable" not in done.stderr


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xef\xbb\xbf[data]\nname = 'digits'\n", ""),
        ("[data]\n".encode("utf-16"), "saved.toml: cannot be read as UTF-8 text (it is UTF-16; save it again with the"),
    ],
)
def test_a_recipe_saved_by_notepad(content: bytes, text: str, tmp_path: Path) -> None:
    recipe = tmp_path / "saved.toml"
    recipe.write_bytes(content)
    if text:
        with pytest.raises(RecipeError, match=re.escape(text)):
            load_recipe(recipe)
    else:
        assert load_recipe(recipe).data.name == "digits"


def test_a_deleted_folder_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line = ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", sys.executable, "-m", "samdeploy", "data", "digits"]
    done = subprocess.run(line, cwd=gone, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (
        2, "samdeploy: the current folder was deleted; change to another one: cd\n",
    )  # fmt: skip


def test_help_on_a_full_disk(environment: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "samdeploy", "--help"], env=environment, stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 2
    assert_one_line(done.stderr, "output: No space left on device")


@pytest.mark.parametrize("home", [None, "relative"])
def test_no_home_has_no_cache(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAMDEPLOY_CACHE")
    if home is None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a user that no list of users has
    else:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(FileNotFoundError, match="set HOME or SAMDEPLOY_CACHE"):
        cache_folder()
    assert read_cache("timing", {}) == (b"", "")
    assert write_cache("timing", {}, b"1").startswith("timing cache not kept: ~/.cache/samdeploy cannot be written")
    assert expanded("~/images") == Path("~/images")


def test_the_server_starts_without_matplotlib(environment: dict[str, str]) -> None:
    pytest.importorskip("starlette", reason="pip install 'samdeploy[serve]'")
    code = "import sys; sys.modules['matplotlib'] = None; import samdeploy.serve.server"
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=120, check=True)
