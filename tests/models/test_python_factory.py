"""A function that a manifest names is called where the user allowed it, and nowhere else."""

from __future__ import annotations

import pytest

from samdeploy.errors import InputError
from samdeploy.models import build_model
from samdeploy.models.python_factory import VARIABLE, allow_factory
from tests.models import own_network

TINY = "tests.models.own_network:tiny"


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samdeploy.models.python_factory._allowed", set())
    monkeypatch.delenv(VARIABLE, raising=False)


def test_no_function_is_called_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    monkeypatch.setattr("samdeploy.models.python_factory._function", imported.append)
    for name in ("os:system", TINY, "no_such_module:f"):
        with pytest.raises(InputError) as caught:
            build_model(f"python:{name}", 3)
        assert str(caught.value) == (
            f"python:{name}: a function of your own builds this network, and is called only when you allow it: "
            f"export SAMDEPLOY_FACTORY={name}"
        )
    monkeypatch.setenv(VARIABLE, "os:getcwd, tests.models.own_network")
    with pytest.raises(InputError, match="called only when you allow it"):
        build_model(f"python:{TINY}", 3)
    assert not imported


@pytest.mark.parametrize("name", ["", "os", "os:system:x", "os:path.join", "os; x:y", ":f", "a b:c", "os:"])
def test_what_is_no_name_is_not_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, name)
    with pytest.raises(InputError, match="unknown architecture"):
        build_model(f"python:{name}", 3)


def test_allowed_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"x:y, {TINY}")
    assert isinstance(build_model(f"python:{TINY}", 3), own_network.Tiny)


def test_allowed_in_this_process() -> None:
    assert allow_factory(own_network.tiny) == f"python:{TINY}"
    assert isinstance(build_model(f"python:{TINY}", 3), own_network.Tiny)


def test_functions_that_others_cannot_import() -> None:
    for function in (lambda num_classes: own_network.tiny(num_classes), own_network.Tiny.forward):
        with pytest.raises(InputError, match="a function at the top of a module that can be imported expected"):
            allow_factory(function)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("tests.models.own_network:failing", "KeyError: 3"),
        ("tests.models.own_network:no_module", "gave int, a torch.nn.Module expected"),
        ("tests.models.own_network:missing", "AttributeError: module '.*' has no attribute 'missing'"),
        ("no_such_module:f", "No module named 'no_such_module'; put the folder of its package into PYTHONPATH"),
    ],
)
def test_functions_that_do_not_build(name: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, name)
    with pytest.raises(InputError, match=f"^python:{name}: {problem}"):
        build_model(f"python:{name}", 3)
