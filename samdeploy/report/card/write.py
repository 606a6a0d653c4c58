"""`samdeploy card`: README.md and bom.cdx.json for a bundle."""

from __future__ import annotations

from pathlib import Path

from samdeploy.bundle import Bundle
from samdeploy.errors import InputError
from samdeploy.files import json_bytes, write_atomic
from samdeploy.report.card.facts import gather_facts
from samdeploy.report.card.markdown import model_card
from samdeploy.report.card.materials import bill_of_materials

CARD_FILE, MATERIALS_FILE = "README.md", "bom.cdx.json"


def write_card(bundle: Bundle, folder: Path, *, force: bool = False) -> tuple[Path, Path]:
    """Write the model card and the bill of materials into `folder`, which exists.

    Args:
        force: also over a card that says something else: someone may have completed it by hand.

    Returns:
        Both files.

    Raises:
        InputError: what is there is no plain file, or a file that says something else, and `force` is not given.
        BundleError: a file of the bundle is damaged.
    """
    facts = gather_facts(bundle)
    written = {
        folder / CARD_FILE: model_card(facts).encode("utf-8", "replace"),
        folder / MATERIALS_FILE: json_bytes(bill_of_materials(facts)),
    }
    for path, content in written.items():
        if path.exists() and not path.is_file():  # to read a pipe would wait for ever
            found = "a folder" if path.is_dir() else "a pipe, socket or device"
            raise InputError(f"{path}: {found} found, a file expected; move it away, or name another folder: --out DIR")
        if not force and path.exists() and path.read_bytes() != content:
            raise InputError(f"{path}: exists with other content; --force overwrites it, --out DIR writes elsewhere")
    for path, content in written.items():
        write_atomic(path, content)
    return folder / CARD_FILE, folder / MATERIALS_FILE
