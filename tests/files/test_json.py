"""JSON that every language can read alike, and what `read_json` refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from samdeploy.errors import BundleError
from samdeploy.files import json_bytes, read_json


def test_json_bytes_are_utf8_with_a_final_newline() -> None:
    assert json_bytes({"name": "Löwe", "n": 1}) == '{\n  "name": "Löwe",\n  "n": 1\n}\n'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_bytes_refuses_what_other_languages_cannot_read(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes({"loss": value})


def test_read_json_reads_what_json_bytes_writes(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    values = {"text": "Löwe \U0001f981", "n": -(1 << 63), "m": (1 << 63) - 1, "x": 1e300, "list": [None, True]}
    path.write_bytes(json_bytes(values))
    assert read_json(path, "bundle") == values


REFUSED_JSON = {
    "no JSON": (b"{", "is not valid JSON (Expecting property name"),
    "empty": (b"", "is empty; copy it or make it again"),
    "a list": (b"[]", "holds a list, an object was expected"),
    "text": (b'"x"', "holds a str, an object was expected"),
    "key twice": (b'{"a": 1, "a": 1}', "is not valid JSON (key 'a' stands twice)"),
    "key twice, deep": (b'{"b": [{"a": 1, "a": 2}]}', "is not valid JSON (key 'a' stands twice)"),
    "NaN": (b'{"a": NaN}', "is not valid JSON (NaN is no JSON)"),
    "infinity": (b'{"a": -Infinity}', "is not valid JSON (-Infinity is no JSON)"),
    "a float too large": (b'{"a": 1e999}', "is not valid JSON (number 1e999 is too large)"),
    "an integer of 65 bits": (b'{"a": 9223372036854775808}', "does not fit 64 bits"),
    "an integer of 401 digits": (
        b'{"a": 1' + b"0" * 400 + b"}",
        "integer 10000000000000000000... does not fit 64 bits",
    ),
    "an integer of a million digits": (b'{"a": ' + b"9" * 1_000_000 + b"}", "does not fit 64 bits"),
    "Latin-1": ('{"a": "Löwe"}'.encode("latin-1"), "is not valid JSON ('utf-8' codec can't decode byte"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "is not valid JSON ('utf-8' codec can't decode byte"),
    "UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-le"), "is not valid JSON ("),
    "byte order mark": (b'\xef\xbb\xbf{"a": 1}', "is not valid JSON (Unexpected UTF-8 BOM"),
    "half a surrogate pair": (b'{"a": "\\ud800"}', "is not valid JSON ('utf-8' codec can't encode character"),
    "nested 100,000 deep": (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is not valid JSON ("),
}


@pytest.mark.parametrize("name", REFUSED_JSON)
def test_read_json_refuses(name: str, tmp_path: Path) -> None:
    content, text = REFUSED_JSON[name]
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(BundleError) as caught:
        read_json(path, "bundle")
    message = str(caught.value)
    assert message.startswith(f"bundle: {path} ")
    assert text in message
    assert len(message) < len(str(path)) + 200  # a hostile file must not fill the screen


def test_read_json_tells_missing_from_unreadable(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^run: .*run\.json is missing; is this the right folder\?$"):
        read_json(tmp_path / "run.json", "run")
    with pytest.raises(BundleError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path, "run")


def test_nesting_is_found_before_it_is_parsed(tmp_path: Path) -> None:
    """A program without a limit on recursion would overflow its stack."""
    path = tmp_path / "deep.json"
    path.write_bytes(b"[" * 2_000_000)
    script = (
        "import sys; from pathlib import Path; from samdeploy.files import read_json\n"
        "sys.setrecursionlimit(10**7); read_json(Path(sys.argv[1]), 'manifest')"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not valid JSON (nested deeper than 32)" in done.stderr


def test_only_brackets_outside_of_strings_nest(tmp_path: Path) -> None:
    path, opening = tmp_path / "some.json", "[{" * 40
    value = {opening + '"\\': [opening + '\\\\"', "\\", opening, '"'], "deep": {}}
    path.write_text(json.dumps(value))
    assert read_json(path, "some") == value
