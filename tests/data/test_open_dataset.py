"""The table of data sets and the one way to open them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from samdeploy.data import DATASETS, SPLITS, DatasetEntry, open_dataset
from samdeploy.errors import InputError, PackageMissing


def test_importing_loads_neither_torch_nor_scikit_learn() -> None:
    code = "import sys, samdeploy.data; print(sorted({'torch', 'torchvision', 'sklearn'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_table() -> None:
    assert SPLITS == ("train", "val", "test")
    assert list(DATASETS) == [
        "digits",
        "fashion-mnist",
        "cifar10",
        "cifar100",
        "aircraft",
        "folder",
        "table",
        "shards",
        "judged-folder",
    ]
    assert all(entry.description for entry in DATASETS.values())


def test_unknown_data_set() -> None:
    with pytest.raises(InputError) as error:
        open_dataset("cifar", Path("data"))
    assert str(error.value) == "unknown data set 'cifar'; did you mean 'cifar10' or 'cifar100'?"


def test_unknown_options_are_named_all_at_once() -> None:
    with pytest.raises(InputError) as error:
        open_dataset("aircraft", Path("data"), options={"levle": "family", "merge": True})
    assert str(error.value) == (
        "unknown option of data set 'aircraft' 'levle'; did you mean 'level'? Valid: level, merge_val, "
        "banner, protocol; "
        "unknown option of data set 'aircraft' 'merge'; did you mean 'merge_val'? Valid: level, merge_val, "
        "banner, protocol"
    )


def test_option_of_a_set_that_has_none() -> None:
    with pytest.raises(InputError) as error:
        open_dataset("digits", Path("data"), options={"level": "family"})
    assert str(error.value) == "data set 'digits' has no option but protocol; found: level. Remove them"


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("level", "model", "option level = 'model' found, one of 'variant', 'family', 'manufacturer' expected"),
        ("merge_val", 1, "option merge_val = 1 found, one of False, True expected"),
    ],
)
def test_option_values(option: str, value: str | int, text: str) -> None:
    with pytest.raises(InputError) as error:
        open_dataset("aircraft", Path("data"), options={option: value})
    assert str(error.value) == f"data set 'aircraft': {text}"


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_val_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(InputError, match=r"^val_fraction \S+ found, a number above 0 and below 1 expected$"):
        open_dataset("digits", Path("data"), val_fraction=fraction)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(InputError, match=f"^seed {seed} found, 0 to 4294967295 expected$"):
        open_dataset("digits", Path("data"), seed=seed)


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_absent_package.py").write_text("import absent_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    absent = {"absent": DatasetEntry("needs_absent_package:open_it", "")}
    monkeypatch.setattr("samdeploy.data.registry.DATASETS", absent)
    with pytest.raises(PackageMissing) as error:
        open_dataset("absent", tmp_path)
    assert str(error.value) == (
        "data set 'absent' needs the package absent_package, which is not installed: pip install 'samdeploy[train]'"
    )


def test_unknown_split() -> None:
    with pytest.raises(InputError, match=r"^unknown split 'valid'; did you mean 'val'\?"):
        open_dataset("digits").split("valid")
