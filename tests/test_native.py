"""Where the C++ sources are found: in a checkout, and when they are missing; in a wheel: test_minimal_install."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import samdeploy
from samdeploy import native

SOURCE = Path(__file__).parents[1]


def test_a_checkout_has_its_own_sources() -> None:
    assert Path(samdeploy.include()) == SOURCE / "cpp" / "include"
    assert (Path(samdeploy.include()) / "samdeploy.h").is_file()
    assert (Path(samdeploy.include()) / "samdeploy.hpp").is_file()
    assert Path(samdeploy.cmake_dir()).is_relative_to(SOURCE / "cpp")
    assert (Path(samdeploy.cmake_dir()) / "samdeployConfig.cmake").is_file()
    assert (Path(samdeploy.cmake_dir()) / "samdeployConfigVersion.cmake").is_file()


def test_the_package_comes_before_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("site/samdeploy/cpp", "site/cpp"):
        shutil.copytree(SOURCE / "cpp" / "include", tmp_path / folder / "include")
    monkeypatch.setattr(native, "_PACKAGE", tmp_path / "site" / "samdeploy")
    assert native.include() == str(tmp_path / "site" / "samdeploy" / "cpp" / "include")
    shutil.rmtree(tmp_path / "site" / "samdeploy" / "cpp")
    assert native.cmake_dir() == str(tmp_path / "site" / "cpp" / "cmake" / "source")


def test_without_sources_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_PACKAGE", tmp_path / "samdeploy")
    for ask in (samdeploy.include, samdeploy.cmake_dir):
        with pytest.raises(samdeploy.InputError) as caught:
            ask()
        assert str(caught.value) == (
            f"no C++ sources found: neither {tmp_path / 'samdeploy' / 'cpp'} nor {tmp_path / 'cpp'} holds "
            "include/samdeploy.h; install samdeploy from its wheel or its repository"
        )
