"""The names that applications import."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import samdeploy
from samdeploy import errors


@pytest.mark.parametrize("name", samdeploy.__all__)
def test_every_public_name_resolves(name: str) -> None:
    found = getattr(samdeploy, name)
    if name != "__version__":
        home = importlib.import_module(samdeploy._HOME[name])
        assert found is getattr(home, name)
        assert found.__module__.startswith("samdeploy.")


def test_the_list_is_whole_and_sorted() -> None:
    assert set(samdeploy.__all__) == {*samdeploy._HOME, "__version__"}
    assert samdeploy.__all__ == sorted(samdeploy.__all__)
    assert dir(samdeploy) == samdeploy.__all__
    promised = {"Classifier", "Prediction", "open_bundle", "open_session"}
    exceptions = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
    }
    assert promised | exceptions <= set(samdeploy.__all__)


@pytest.mark.parametrize("name", ["Clasifier", "", "_HOMES", "open_bundles"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(samdeploy, name)
    assert str(caught.value) == f"module 'samdeploy' has no attribute {name!r}"
    with pytest.raises(ImportError):
        exec(f"from samdeploy import {name or 'x'}")


def test_the_version_is_a_version() -> None:
    assert len(samdeploy.__version__.split(".")) == 3
    assert all(part.isdigit() for part in samdeploy.__version__.split("."))


def test_types_are_shipped() -> None:
    assert (Path(samdeploy.__file__).parent / "py.typed").is_file()
