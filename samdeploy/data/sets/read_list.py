"""The list behind a path that holds no class folders: a table or tar shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from samdeploy.data.dataset import OptionValue
from samdeploy.data.sets.given import what_is_given
from samdeploy.data.sets.image_list import ImageList
from samdeploy.data.sets.shards import read_shards
from samdeploy.data.sets.table import read_table


def read_list(root: Path, options: Mapping[str, OptionValue]) -> ImageList:
    """What `root` lists, which is no folder of images; see `read_table` and `read_shards`.

    Args:
        options: of that data set; those that are left out take their default.
    """
    return (read_table if what_is_given(root).kind == "table" else read_shards)(root, options)
