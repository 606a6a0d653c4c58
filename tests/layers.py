"""Who may import whom, as tables, and what reads it from the syntax trees.  The rules stand in DESIGN.md, too."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import samdeploy

PACKAGE = Path(samdeploy.__file__).parent

_BUNDLE = frozenset({"errors", "files", "arrays", "bundle"})
_APPLICATION = _BUNDLE | {"terminal", "runs", "images", "backends", "ranking", "classifier"}

# A part (a module or a package directly below samdeploy) -> the other parts it may import, anywhere in its files.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "__init__": frozenset(),
    "__main__": frozenset({"cli"}),
    "errors": frozenset(),
    "arrays": frozenset(),
    "metrics": frozenset({"arrays"}),
    "certainty": frozenset({"arrays"}),
    "terminal": frozenset(),
    "progress": frozenset(),
    "native": frozenset({"errors"}),
    "files": frozenset({"errors"}),
    "bundle": frozenset({"errors", "files", "arrays"}),
    "runs": frozenset({"errors", "files", "bundle"}),
    "images": _BUNDLE | {"terminal"},
    "preprocess": frozenset({"images"}),
    "graphs": _BUNDLE,
    "models": _BUNDLE | {"runs", "graphs"},
    "data": _BUNDLE | {"terminal", "images", "progress"},
    "backends": _BUNDLE | {"models", "graphs"},  # the pytorch backend builds the trained network
    "ranking": _BUNDLE,
    "classifier": _BUNDLE | {"images", "backends", "ranking"},
    "predict": _APPLICATION,
    "explain": _APPLICATION | {"progress", "graphs", "models"},  # only the families know where gates are
    "train": _BUNDLE | {"metrics", "terminal", "runs", "images", "progress", "models", "data"},
    "importing": _BUNDLE | {"metrics", "terminal", "runs", "images", "progress", "models", "data"},
    "export": _BUNDLE | {"certainty", "runs", "images", "backends", "progress", "graphs", "models", "data"},
    "evaluate": _APPLICATION | {"certainty", "metrics", "progress", "data", "label"},
    "bench": _APPLICATION | {"progress", "models", "data", "evaluate"},
    "compare": _APPLICATION | {"metrics", "progress", "data", "evaluate", "bench"},
    "serve": _APPLICATION | {"certainty", "explain"},
    "label": _APPLICATION | {"certainty", "progress", "data", "graphs"},
    "doctor": _APPLICATION | {"progress", "evaluate", "bench"},
    "report": _APPLICATION
    | {"certainty", "metrics", "progress", "data", "label", "evaluate", "explain", "export", "bench", "compare"}
    | {"doctor"},
    "cli": _APPLICATION
    | {"progress", "predict", "explain", "models", "data", "train", "importing", "export", "evaluate", "bench"}
    | {"compare", "report", "doctor", "serve", "label"},
}

# A runtime -> the file or folder that may import it at module level, besides the parts below.
RUNTIME_HOME = {
    "torch": "backends/pytorch",
    "torchvision": "backends/pytorch",
    "onnxruntime": "backends/onnxruntime",
    "tensorrt": "backends/tensorrt",
    "tensorrt_rtx": "backends/tensorrt",
    "cuda": "backends/device",
    "onnx": None,
}
RUNTIMES_WELCOME = frozenset({"graphs", "models", "data", "train", "importing", "export"})

# A part, or one of its files -> the packages of others that it may import at module level; others are free.
THIRD_PARTY: dict[str, frozenset[str]] = {
    **dict.fromkeys(("__init__", "errors", "files", "terminal", "native", "bundle", "runs", "classifier"), frozenset()),
    **dict.fromkeys(("arrays", "metrics", "certainty", "ranking", "predict", "bundle/golden"), frozenset({"numpy"})),
    "terminal/tables": frozenset({"rich"}),
    "images": frozenset({"numpy", "PIL"}),
    "graphs": frozenset({"numpy", "onnx"}),
    "graphs/inference": frozenset({"numpy", "onnxruntime"}),
    "cli": frozenset({"typer"}),
}

# A part, or one of its files -> the parts it may import at module level, where that is less than MAY_IMPORT: the rest
# costs time.
EARLY = {
    "cli": frozenset({"cli", "errors", "terminal"}),
    "__init__": frozenset(),
    # Opening starts to read the graph before numpy is imported.
    "bundle": frozenset({"errors", "files", "bundle"}),
    "bundle/golden": _BUNDLE,
    "runs": frozenset({"errors", "files", "bundle", "runs"}),
    "classifier": frozenset({"errors", "files", "bundle", "backends"}),
    # Maps need no PyTorch and no onnx.
    "explain": _APPLICATION | {"progress", "explain"},
}

# A part -> packages that it may not import anywhere, not even inside a function.
NEVER = dict.fromkeys(("evaluate", "compare", "serve", "label"), frozenset({"torch", "torchvision"}))

# A package -> the one file that may import it, even inside a function: there its telemetry is switched off.
ONLY_IN = {"openvino": "backends/openvino/package.py"}

# What one family of networks is made of.  Files outside models/ know none of it: they ask the family.
OF_ONE_FAMILY = frozenset({"SamResNet", "FoldedResNet", "FoldedBlock", "StreamlinedAttention"})
FAMILY_ROOMS = tuple(f"samdeploy.models.{room}" for room in ("sam_resnet", "timm", "torchvision", "onnx_file"))
# The attention's option, as an attribute and as text; and files that may say the word, with what it is there.
GATE = "gate"
OTHER_GATES = {
    "report/junit.py": "the verdict",
    **dict.fromkeys(("runs/record.py", "bundle/manifest.py"), "a key of development versions"),
    **dict.fromkeys(("explain/gates.py", "explain/gates_plot.py"), "a title of what the family names"),
}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, with its full dotted name."""

    target: str
    line: int
    at_module_level: bool


class _Imports(ast.NodeVisitor):
    def __init__(self, package: str, modules: Collection[str] = ()) -> None:
        self.found: list[Import] = []
        self._modules = modules
        self._package = package.split(".")
        self._functions = 0

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            self._add(name.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        above = self._package[: len(self._package) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        for name in node.names:
            full = f"{module}.{name.name}"  # `from samdeploy import train` imports samdeploy.train
            self._add(full if module == "samdeploy" or full in self._modules else module, node)

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


def imports_of(path: Path, package: Path, modules: Collection[str] = ()) -> list[Import]:
    """Every import in a file, except those under `if TYPE_CHECKING`.

    Args:
        modules: dotted names of modules: `from a import b` is an import of `a.b` where that is one of them.
    """
    visitor = _Imports(".".join(["samdeploy", *path.parent.relative_to(package).parts]), modules)
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
    stem = file.removesuffix(".py")
    early = EARLY.get(stem, EARLY.get(part, MAY_IMPORT[part] | {part}))
    packages = THIRD_PARTY.get(stem, THIRD_PARTY.get(part))
    for found in imports_of(path, package):
        where, other, outside = f"{file}:{found.line}", part_of(found.target), found.target.partition(".")[0]
        if other is not None and other != part and other not in MAY_IMPORT[part]:
            yield f"{where}: {part} may not import {other}"
        if other is not None and found.at_module_level and other not in early:
            yield f"{where}: {part} may import {other} inside functions only"
        if outside in NEVER.get(part, ()):
            yield f"{where}: {part} may not import {outside}, not even inside a function"
        if file != ONLY_IN.get(outside, file):
            yield f"{where}: only {ONLY_IN[outside]} imports {outside}"
        if not found.at_module_level or outside == "samdeploy":
            continue
        if outside in RUNTIME_HOME and part not in RUNTIMES_WELCOME and not _at_home(stem, RUNTIME_HOME[outside]):
            yield f"{where}: the runtime {outside} is not at home here"
        if outside not in sys.stdlib_module_names and packages is not None and outside not in packages:
            yield f"{where}: {part} may not import the package {outside} at module level"
    if part != "models":
        yield from _architectures_in(path, file)


def _architectures_in(path: Path, file: str) -> Iterator[str]:
    """Where a file knows one family of networks."""
    source = path.read_text(encoding="utf-8")
    for line, text in enumerate(source.splitlines(), 1):
        for name in OF_ONE_FAMILY.intersection(re.findall(r"\w+", text)):
            yield f"{file}:{line}: only models/ knows {name}"
        for room in FAMILY_ROOMS:
            if re.search(rf"\b{room}\b", text):
                yield f"{file}:{line}: only models/ imports {room}"
    if file in OTHER_GATES:
        return
    for node in ast.walk(ast.parse(source)):
        is_gate = isinstance(node, ast.Attribute) and node.attr == GATE
        if is_gate or (isinstance(node, ast.Constant) and node.value == GATE):
            yield f"{file}:{node.lineno}: only models/ asks about the attention's gate"


def _at_home(file: str, home: str | None) -> bool:
    # The alternatives that bench compares with lie in files of the same names as the backends.
    if home is None:
        return False
    return file == home or file.startswith(f"{home}/") or file == home.replace("backends/", "bench/alternatives/")


def circles(package: Path) -> list[list[str]]:
    """Files that import one another in a circle, also inside functions; each circle as sorted module names.

    A folder's own `__init__` counts as a file like any other.
    """
    files = {_module(path, package): path for path in package.rglob("*.py")}
    imports = {
        name: {found.target for found in imports_of(path, package, files) if found.target in files} - {name}
        for name, path in files.items()
    }
    found: list[list[str]] = []
    reached = {name: _reachable(name, imports) for name in imports}
    for name in sorted(imports):
        circle = sorted(other for other in reached[name] if name in reached[other])
        if name in circle and circle not in found:
            found.append(circle)
    return found


def _reachable(start: str, imports: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in imports[waiting.pop()] - seen:
            seen.add(target)
            waiting.append(target)
    return seen


def _module(path: Path, package: Path) -> str:
    return ".".join(["samdeploy", *path.relative_to(package).with_suffix("").parts]).removesuffix(".__init__")
