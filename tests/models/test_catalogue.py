"""The list of architectures."""

from __future__ import annotations

import pytest
import torch

from samdeploy.errors import InputError
from samdeploy.models import build_model
from samdeploy.models.catalogue import COUNTED_CLASSES, MOST_COUNTED, family_sizes, find_architectures
from samdeploy.models.registry import FAMILIES, family_of


def test_every_family_is_counted() -> None:
    sizes = family_sizes()
    assert set(sizes) == set(FAMILIES)
    assert sizes["torchvision"] == len(family_of("torchvision:").architectures())


def test_a_pattern_with_a_family() -> None:
    found = find_architectures("timm:test_*net")
    assert found[0].name == "timm:test_byobnet"
    resnet = next(row for row in found if row.name == "timm:test_resnet")
    assert resnet.images() == ("160", "bilinear", "95") and resnet.license == "apache-2.0"
    with torch.device("meta"):
        network = build_model("timm:test_resnet", COUNTED_CLASSES)
    assert resnet.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_a_name_without_a_family() -> None:
    found = find_architectures("resnet18")
    assert [(row.name, row.images()[1]) for row in found] == [
        ("timm:resnet18", "bicubic"),
        ("torchvision:resnet18", "bilinear"),
    ]
    assert all(row.parameters == 11_689_512 for row in found)  # as torchvision's documentation says
    assert [row.images() for row in find_architectures("sam-resnet18")] == [(None, None, None)]


def test_many_are_listed_without_being_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("samdeploy.models.catalogue.build_model")
    found = find_architectures("timm:*")
    assert len(found) > MOST_COUNTED and not any(row.parameters for row in found)
    inexpressible = next(row for row in found if row.name == "timm:dm_nfnet_f0")
    assert inexpressible.preprocessing is None and inexpressible.license


def test_nothing_fits() -> None:
    with pytest.raises(InputError, match="unknown architecture 'timm:rsnet18'; did you mean 'timm:resnet18'"):
        find_architectures("timm:rsnet18")


def test_a_word_stands_for_all_names_that_hold_it() -> None:
    names = [row.name for row in find_architectures("seresnet")]
    assert "timm:seresnet50" in names and "timm:legacy_seresnet18" in names
