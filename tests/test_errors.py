"""The exception tree is the drawn one, and unknown names are told well."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from samdeploy import errors
from samdeploy.errors import unknown


def drawn_tree() -> dict[str, str]:
    """Class -> the one it is drawn below, at the top of errors.py; root first."""
    lines = re.findall(r"^( {4}| {5}[│ ]?[ ]*[├└]── )(\w+) {2,}\S", errors.__doc__ or "", re.MULTILINE)
    tree: dict[str, str] = {}
    above: list[str] = []
    for drawn, name in lines:
        depth = (len(drawn) - 4) // 5
        tree[name] = above[depth - 1] if depth else "Exception"
        above[depth:] = [name]
    return tree


def test_the_drawn_tree_is_the_real_tree() -> None:
    classes = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    found = {name: " ".join(base.__name__ for base in value.__bases__) for name, value in classes.items()}
    assert list(drawn_tree().items()) == list(found.items())


EXIT_CODES = {
    "SamdeployError": 2,
    "InputError": 2,
    "PackageMissing": 1,
    "ImageError": 2,
    "AnswerError": 1,
    "DatasetError": 2,
    "DatasetMissing": 2,
    "RecipeError": 2,
    "TrainingError": 1,
    "Diverged": 1,
    "WeightsError": 2,
    "ExportError": 1,
    "BundleError": 2,
    "Contradiction": 1,
    "BackendUnavailable": 1,
    "FileSizeLimit": 1,
}


def test_exit_codes() -> None:
    """2 where the user can mend the input, 1 where a promise was not kept."""
    assert {name: getattr(errors, name).exit_code for name in drawn_tree()} == EXIT_CODES


@pytest.mark.parametrize(
    ("kind", "found", "valid", "text"),
    [
        ("device", "gpu", ["auto", "cpu", "cuda"], "unknown device 'gpu'; did you mean 'cuda'? Valid: auto, cpu, cuda"),
        ("backend", "trt", ["pytorch", "onnxruntime"], "unknown backend 'trt'. Valid: pytorch, onnxruntime"),
        # Too far for difflib, but the beginning of one.
        ("key", "a", ["architecture", "b"], "unknown key 'a'; did you mean 'architecture'? Valid: architecture, b"),
        ("key", "sizes_in_pixels", ["size", "b"], "unknown key 'sizes_in_pixels'; did you mean 'size'? Valid: size, b"),
        ("key", "colour", ["cursor"], "unknown key 'colour'. Valid: cursor"),
        ("class", "xyz", "abcdefghij", "unknown class 'xyz'. Valid: a, b, c, d, e, and 5 more"),
        ("key", "", ["a", "b"], "unknown key ''. Valid: a, b"),
        ("device", None, ["cpu", "cuda"], "device: NoneType found, a name expected. Valid: cpu, cuda"),
        ("key", "it's", ["its"], "unknown key \"it's\"; did you mean 'its'? Valid: its"),
        (
            "gate",
            "lr1",
            ["lr2", "lr3", "lr4", "lr5"],  # three hints are enough
            "unknown gate 'lr1'; did you mean 'lr5' or 'lr4' or 'lr3'? Valid: lr2, lr3, lr4, lr5",
        ),
    ],
)
def test_unknown(kind: str, found: str, valid: list[str], text: str) -> None:
    assert unknown(kind, found, valid) == text
    assert unknown(kind, found, iter(valid)) == text  # an iterator can be walked only once


def test_the_example_in_the_docstring_is_true() -> None:
    lines = [line.strip() for line in (unknown.__doc__ or "").splitlines()]
    index = next(i for i, line in enumerate(lines) if line.startswith(">>> "))
    call = lines[index].removeprefix(">>> ")
    assert eval(call, {"unknown": unknown}) == ast.literal_eval(lines[index + 1])


@pytest.mark.parametrize("name", ["BundleError", "ExportError"])
def test_the_command_line_prints_one_line_and_exits_with_the_code(name: str) -> None:
    """A command that fails, under the decorator that every command wears."""
    script = f"""
import sys
from samdeploy import errors
from samdeploy.cli import main
from samdeploy.cli.app import command
@command
def fails() -> None:
    raise errors.{name}('first\\n  second')
sys.argv = ['samdeploy', 'fails']
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(errors.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_CODES[name], "", "samdeploy: first second\n")
