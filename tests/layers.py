"""Who may import whom, as tables, and what reads it from the syntax trees.  The rules stand in DESIGN.md, too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import samdeploy

PACKAGE = Path(samdeploy.__file__).parent

# Plain data and its files: the standard library is all they need.
_DATA = frozenset({"errors", "spec", "fields", "files", "spec_json", "measured", "manifest", "run", "path_kind"})
_ARRAYS = _DATA | {"arrays"}
_ON_DISK = frozenset({"terminal", "walk"})  # names of files and classes, and where images lie
_APPLICATION = _ARRAYS | {
    "terminal",
    "bundle",
    "run_bundle",
    "preprocess",
    "stream",
    "backends",
    "ranking",
    "classifier",
}

# A part (a module or a package directly below samdeploy) -> the other parts it may import, anywhere in its files.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "__init__": frozenset(),
    "__main__": frozenset({"cli"}),
    "errors": frozenset(),
    "arrays": frozenset(),
    "spec": frozenset({"errors"}),
    "fields": frozenset({"errors"}),
    "files": frozenset({"errors"}),
    "spec_json": frozenset({"errors", "spec", "fields"}),
    "measured": frozenset({"errors", "spec", "fields", "spec_json"}),
    "manifest": frozenset({"errors", "spec", "fields", "files", "spec_json", "measured"}),
    "run": frozenset({"errors", "spec", "fields", "files", "spec_json", "manifest", "path_kind"}),
    "path_kind": frozenset({"manifest", "run"}),
    "progress": frozenset(),
    "bundle": _ARRAYS | {"golden", "run_bundle"},
    "golden": _ARRAYS | {"bundle"},
    "run_bundle": _DATA | {"bundle"},
    "images": _ARRAYS,
    "preprocess": _ARRAYS | {"bundle", "images"},
    "stream": _ARRAYS | {"preprocess"},
    "terminal": frozenset(),
    "walk": frozenset({"errors", "terminal"}),
    "named": frozenset({"errors"}) | _ON_DISK,
    "native": frozenset({"errors"}),
    "lettering": frozenset(),
    "models": _ARRAYS,
    "data": _ARRAYS | _ON_DISK | {"preprocess", "progress"},
    "backends": _ARRAYS | {"bundle", "models"},  # the pytorch backend builds the trained network
    "ranking": _ARRAYS,
    "classifier": _ARRAYS | {"bundle", "preprocess", "stream", "backends", "ranking"},
    "predict": _APPLICATION | {"named"},
    "explain": _APPLICATION | {"named", "progress", "lettering"},
    "train": _ARRAYS | {"terminal", "preprocess", "progress", "lettering", "models", "data"},
    "export": _ARRAYS | {"bundle", "golden", "preprocess", "backends", "progress", "models", "data"},
    "evaluate": _APPLICATION | _ON_DISK | {"golden", "progress", "data"},
    "bench": _APPLICATION | _ON_DISK | {"progress", "models", "data", "evaluate"},
    "report": _APPLICATION | {"progress", "data", "evaluate", "explain"},
    "doctor": _APPLICATION | {"golden", "progress", "evaluate", "bench"},
    "cli": _APPLICATION
    | {
        "progress",
        "predict",
        "explain",
        "models",
        "data",
        "train",
        "export",
        "evaluate",
        "bench",
        "report",
        "doctor",
    },
}

# A runtime -> the file that may import it at module level (and its <name>_cuda.py), besides the parts below.
RUNTIME_HOME = {
    "torch": "backends/pytorch.py",
    "torchvision": "backends/pytorch.py",
    "onnxruntime": "backends/onnxruntime.py",
    "tensorrt": "backends/tensorrt.py",
    "tensorrt_rtx": "backends/tensorrt.py",
    "cuda": "backends/cuda.py",
    "onnx": None,
}
RUNTIMES_WELCOME = frozenset({"models", "data", "train", "export"})

# A part -> all packages of others that it may import at module level; parts that are not named are free.
THIRD_PARTY: dict[str, frozenset[str]] = {
    **dict.fromkeys((*_DATA, *_ON_DISK, "__init__", "native", "named"), frozenset()),
    "arrays": frozenset({"numpy"}),
    **dict.fromkeys(("bundle", "classifier", "run_bundle"), frozenset()),
    **dict.fromkeys(("golden", "ranking"), frozenset({"numpy"})),
    **dict.fromkeys(("images", "preprocess"), frozenset({"numpy", "PIL"})),
    "stream": frozenset({"numpy"}),
    "predict": frozenset({"numpy"}),
    "cli": frozenset({"typer"}),
}

# A part -> the parts it may import at module level, where that is less than MAY_IMPORT: the rest costs time.
EARLY = {
    "cli": frozenset({"cli", "errors", "terminal"}),
    "__init__": frozenset(),
    # Opening starts to read the graph before numpy is imported.
    "bundle": _DATA,
    "classifier": _DATA | {"bundle", "backends"},
}

# A part -> packages that it may not import anywhere, not even inside a function.
NEVER = {"evaluate": frozenset({"torch", "torchvision"})}

# A package -> the one file that may import it, even inside a function: there its telemetry is switched off.
ONLY_IN = {"openvino": "backends/openvino_package.py"}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, with its full dotted name."""

    target: str
    line: int
    at_module_level: bool


class _Imports(ast.NodeVisitor):
    def __init__(self, package: str) -> None:
        self.found: list[Import] = []
        self._package = package.split(".")
        self._functions = 0

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            self._add(name.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        above = self._package[: len(self._package) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        if module == "samdeploy":  # `from samdeploy import train` imports samdeploy.train
            for name in node.names:
                self._add(f"samdeploy.{name.name}", node)
        else:
            self._add(module, node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if (
            isinstance(node.value, ast.Name) and node.value.id == "samdeploy"
        ):  # resolved late, but imported all the same
            self._add(f"samdeploy.{node.attr}", node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        argument = node.args[0] if node.args else None
        if name in ("importlib.import_module", "import_module", "__import__") and isinstance(argument, ast.Constant):
            self._add(str(argument.value), node)
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self._functions += 1
        self.generic_visit(node)
        self._functions -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815
    visit_Lambda = visit_FunctionDef  # noqa: N815

    def _add(self, target: str, node: ast.stmt | ast.expr) -> None:
        self.found.append(Import(target, node.lineno, self._functions == 0))


def imports_of(path: Path, package: Path) -> list[Import]:
    """Every import in a file, except those under `if TYPE_CHECKING`."""
    visitor = _Imports(".".join(["samdeploy", *path.parent.relative_to(package).parts]))
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    return visitor.found


def part_of(target: str) -> str | None:
    """The part of samdeploy that a dotted name belongs to; None for its version and the like, and for others' names."""
    top, _, rest = target.partition(".")
    name = rest.partition(".")[0]
    if top != "samdeploy" or not name or name.startswith("__"):
        return None
    if name in samdeploy._HOME:  # a public name, such as samdeploy.open_bundle
        return part_of(samdeploy._HOME[name])
    return name


def violations(package: Path) -> list[str]:
    """Every broken rule below `package`, as "file:line: what"."""
    return [text for path in sorted(package.rglob("*.py")) for text in _violations_in(path, package)]


def _violations_in(path: Path, package: Path) -> Iterator[str]:
    relative = path.relative_to(package)
    file, part = relative.as_posix(), relative.with_suffix("").parts[0]
    if part not in MAY_IMPORT:
        yield f"{file}: has no place among the layers; enter {part!r} into MAY_IMPORT of tests/layers.py"
        return
    for found in imports_of(path, package):
        where, other, outside = f"{file}:{found.line}", part_of(found.target), found.target.partition(".")[0]
        if other is not None and other != part and other not in MAY_IMPORT[part]:
            yield f"{where}: {part} may not import {other}"
        if other is not None and found.at_module_level and other not in EARLY.get(part, MAY_IMPORT[part] | {part}):
            yield f"{where}: {part} may import {other} inside functions only"
        if outside in NEVER.get(part, ()):
            yield f"{where}: {part} may not import {outside}, not even inside a function"
        if file != ONLY_IN.get(outside, file):
            yield f"{where}: only {ONLY_IN[outside]} imports {outside}"
        if not found.at_module_level or outside == "samdeploy":
            continue
        if outside in RUNTIME_HOME and part not in RUNTIMES_WELCOME and not _at_home(file, RUNTIME_HOME[outside]):
            yield f"{where}: the runtime {outside} is not at home here"
        if outside not in sys.stdlib_module_names and outside not in THIRD_PARTY.get(part, {outside}):
            yield f"{where}: {part} may not import the package {outside} at module level"


def _at_home(file: str, home: str | None) -> bool:
    # The alternatives that bench compares with lie in files of the same names as the backends.
    if home is None:
        return False
    return file in (home, home.replace(".py", "_cuda.py"), home.replace("backends/", "bench/"))
