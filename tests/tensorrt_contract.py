"""Is everything of TensorRT that samdeploy uses there, with the arguments it is given?

Uses are collected by a walk over samdeploy's syntax trees, so a new one is checked by itself.  The real bindings tell
what there is: pybind11 writes the signature of each function into its docstring, and with it the type of its result.

As a program it checks the package `tensorrt_bindings` that it can import, and prints what it found as JSON.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1] / "samdeploy"
FILES = (*sorted(PACKAGE.glob("backends/tensorrt/*.py")), *sorted(PACKAGE.glob("export/tensorrt/*.py")))
# Parameters and attributes that samdeploy annotates as Any -> what they are; "" is nothing of TensorRT's.
NAMED = {
    "builder": "Builder", "network": "INetworkDefinition", "config": "IBuilderConfig", "engine": "ICudaEngine",
    "error": "ParserError", "layer": "ILayer", "log": "ILogger", "severity": "", "arguments": "", "collector": "",
    "self._runtime": "Runtime", "self._engine": "ICudaEngine", "self._context": "IExecutionContext",
    "self._cache": "IRuntimeCache", "self._log": "", "_loggers": "", "plans": "",
}  # fmt: skip
# Results whose type pybind11 does not tell: properties, and helpers of samdeploy.
RESULTS = {"open_plan": ("Runtime", "ICudaEngine")}
# In one of the two packages only; samdeploy asks with hasattr before it uses them.
OPTIONAL = {
    "Runtime.get_engine_validity", "trt.EngineValidity", "trt.EngineInvalidityDiagnostics", "trt.ComputeCapability",
    "ICudaEngine.create_runtime_config", "IBuilderConfig.num_compute_capabilities", "trt.IRuntimeCache",
    "IBuilderConfig.set_compute_capability", "IExecutionContext.is_stream_capturable",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "BuilderFlag.REQUIRE_USER_ALLOCATION",
    "IRuntimeConfig.create_runtime_cache", "IRuntimeConfig.set_runtime_cache",
}  # fmt: skip


@dataclass
class Checked:
    """What was found: uses that were looked up, and what is wrong with them ("file:line: what")."""

    uses: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def check(trt: Any, files: tuple[Path, ...] = FILES) -> Checked:
    """Check every use of TensorRT in the files against the bindings `trt`."""
    checked = Checked()
    for path in files:
        _Walk(trt, path, checked).visit(ast.parse(path.read_text(encoding="utf-8")))
    return checked


class _Walk(ast.NodeVisitor):
    """Types of names, as far as they are TensorRT's: a class of the bindings, or the module itself."""

    def __init__(self, trt: Any, path: Path, checked: Checked) -> None:
        self._trt, self._path, self._checked = trt, path, checked
        self._scope: dict[str, Any] = {}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self._scope = self._scope, dict(self._scope)
        for argument in (*node.args.args, *node.args.kwonlyargs, *filter(None, [node.args.vararg])):
            if argument.arg == "trt":
                self._scope["trt"] = self._trt
            elif argument.annotation is not None and ast.unparse(argument.annotation) == "Any":
                self._scope[argument.arg] = self._named(argument.arg, node)
        self.generic_visit(node)
        self._scope = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in filter(inspect.isclass, map(self._type_of, node.bases)):
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_") and hasattr(base, part.name):
                    self._checked.uses.add(f"{base.__name__}.{part.name}")
        outer, self._scope = self._scope, dict(self._scope)
        self.generic_visit(node)
        self._scope = outer

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        name = ast.unparse(node.target)
        if re.search(r"\bAny\b", ast.unparse(node.annotation)) and not re.search(
            r"(dict|Mapping)\[str", ast.unparse(node.annotation)
        ):
            self._scope[name] = self._named(name, node)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        found = self._type_of(node.value)
        for target in node.targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            types = found if isinstance(found, tuple) else (found,) * len(names)
            for name, kind in zip(map(ast.unparse, names), types, strict=False):
                self._scope[name.removesuffix(".__class__")] = kind
            if isinstance(node.value, ast.ListComp):
                self._scope[f"{ast.unparse(target)}[]"] = self._element(node.value)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._scope[ast.unparse(node.target)] = self._element(node.iter)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._scope[ast.unparse(node.target)] = self._element(node.iter)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp) -> None:
        for generator in node.generators:  # they name what the elements are made of
            self.visit(generator)
        self.generic_visit(node)

    visit_GeneratorExp = visit_SetComp = visit_DictComp = visit_ListComp  # noqa: N815

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = self._type_of(node.value)
        if owner is self._trt and node.attr not in ("__name__", "__version__"):
            self._look(owner, "trt", node)
        elif inspect.isclass(owner) and owner not in (int, str, bool, float):
            self._look(owner, owner.__name__, node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        function, owner = node.func, None
        if isinstance(function, ast.Attribute):
            owner = self._type_of(function.value)
        elif ast.unparse(function) == "create":  # create(trt, "Builder", log) is trt.Builder(log)
            kind = ast.literal_eval(node.args[1])
            made = getattr(self._trt, kind, None)
            self._checked.uses.add(f"trt.{kind}")
            if made is None:
                self._problem(node, f"trt.{kind} is missing")
            else:
                self._arguments(made.__init__, f"{kind}()", len(node.args) - 2, [], node)
            return
        if owner is self._trt or inspect.isclass(owner):
            assert isinstance(function, ast.Attribute)
            called = getattr(owner, function.attr, None)
            called = called.__init__ if inspect.isclass(called) else called
            given = sum(2 if isinstance(argument, ast.Starred) else 1 for argument in node.args)
            starred = any(isinstance(argument, ast.Starred) for argument in node.args)
            given -= function.attr == "__init__"  # of a base, which is given self
            if called is not None and not starred:
                self._arguments(called, ast.unparse(function), given, [k.arg for k in node.keywords], node)

    def _named(self, name: str, node: ast.stmt) -> Any:
        if name not in NAMED:
            self._problem(node, f"{name} is annotated Any; enter its class into NAMED of tests/tensorrt_contract.py")
        return getattr(self._trt, NAMED.get(name, "") or "?", None)

    def _look(self, owner: Any, title: str, node: ast.Attribute) -> None:
        use = f"{title}.{node.attr}"
        self._checked.uses.add(use)
        if hasattr(owner, node.attr):
            settable = getattr(getattr(owner, node.attr), "fset", True)
            if isinstance(node.ctx, ast.Store) and settable is None:
                self._problem(node, f"{use} cannot be set")
        elif use not in OPTIONAL and node.attr != "__class__":
            self._problem(node, f"{use} is missing")

    def _arguments(self, called: Any, title: str, given: int, names: list[str | None], node: ast.Call) -> None:
        forms = list(_signatures(called))
        if not forms:
            return
        fitting = [
            f
            for f in forms
            if f.required <= given + len(names) and given <= len(f.names) and set(names) <= set(f.names)
        ]
        if not fitting:
            shown = " or ".join(f"({', '.join(form.names)})" for form in forms)
            self._problem(node, f"{title} takes {shown}; {given} arguments {names or ''} given")

    def _type_of(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            named = getattr(self._trt, NAMED.get(name, "") or "?", None) if "self." in name else self._scope.get(name)
            owner = self._type_of(node.value)
            found = getattr(owner, node.attr, None) if owner is self._trt else None
            return named if named is not None else found
        if isinstance(node, ast.Name):
            return self._scope.get(node.id)
        if isinstance(node, ast.Call):
            return self._result(node)
        return None

    def _result(self, node: ast.Call) -> Any:
        name = ast.unparse(node.func)
        if name == "create":
            return getattr(self._trt, ast.literal_eval(node.args[1]), None)
        if name in RESULTS:
            return tuple(getattr(self._trt, kind) for kind in RESULTS[name])
        made = self._type_of(node.func)
        if inspect.isclass(made):
            return made
        if isinstance(node.func, ast.Attribute):
            owner = self._type_of(node.func.value)
            if inspect.isclass(owner):
                for form in _signatures(getattr(owner, node.func.attr, None)):
                    return getattr(self._trt, form.result, None)
        return None

    def _element(self, node: ast.expr) -> Any:
        """What iterating gives, where it is a list that was made of TensorRT's objects."""
        if isinstance(node, ast.Name):
            return self._scope.get(f"{node.id}[]")
        if isinstance(node, ast.Tuple) and node.elts and isinstance(node.elts[0], ast.Starred):
            return self._element(node.elts[0].value)
        if isinstance(node, ast.ListComp):
            return self._type_of(node.elt)
        return None

    def _problem(self, node: ast.AST, text: str) -> None:
        self._checked.problems.append(f"{self._path.relative_to(PACKAGE)}:{node.lineno}: {text}")  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Form:
    names: list[str]
    required: int
    result: str


def _signatures(function: Any) -> Iterator[_Form]:
    """The forms of a pybind11 function, `name(self: T, a: int, b: U = default) -> R`, without self."""
    for line in (inspect.getdoc(function) or "").splitlines():
        found = re.match(r"(?:\d+\. )?\w+\((.*)\) -> (.+)$", line.strip())
        if not found:
            continue
        # Types and defaults hold commas and brackets; a parameter begins with a name and a colon.
        inside = re.sub(r"<[^>]*>|\[[^\[\]]*\]|\[[^\[\]]*\[[^\[\]]*\][^\[\]]*\]", "", found.group(1))
        parameters = [part.strip() for part in inside.split(",") if ":" in part]
        names = [part.split(":")[0] for part in parameters]
        required = sum("=" not in part for part in parameters)
        if names[:1] == ["self"]:
            names, required = names[1:], required - 1
        yield _Form(names, required, found.group(2).split(".")[-1].split("[")[-1].rstrip("]"))


if __name__ == "__main__":
    import tensorrt_bindings

    found = check(tensorrt_bindings.tensorrt if hasattr(tensorrt_bindings, "tensorrt") else tensorrt_bindings)
    print(
        json.dumps({"version": tensorrt_bindings.__version__, "uses": sorted(found.uses), "problems": found.problems})
    )
