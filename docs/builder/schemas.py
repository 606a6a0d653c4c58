"""The page of the JSON schemas, and the schemas themselves to download."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Schema -> the file that it describes, and the page with the meaning of every field.
SCHEMAS = {
    "docs/manifest.schema.json": ("manifest.json", "../bundle.md"),
    "samdeploy/report/eval.schema.json": ("eval.json", "../files.md#evaljson"),
    "samdeploy/report/compare.schema.json": ("compare.json", "../files.md#comparejson"),
}


def page() -> str:
    """Markdown: each schema's address, and its fields with their types."""
    parts = ["# JSON schemas\n", "JSON Schema, draft 2020-12, for the files that other programs read.\n"]
    for source, (file, meaning) in SCHEMAS.items():
        schema = json.loads((ROOT / source).read_text(encoding="utf-8"))
        name = Path(source).name
        parts.append(f"## {file}\n\n[{name}]({name}) · [meaning of the fields]({meaning})\n")
        parts += [*_table(schema), ""]
        for part, definition in schema.get("$defs", {}).items():
            if "properties" in definition:
                parts += [f"### {file}: {part}\n", *_table(definition), ""]
    return "\n".join(parts)


def copy_to(folder: Path) -> None:
    """Copy the schemas into the folder of the page."""
    for source in SCHEMAS:
        shutil.copy(ROOT / source, folder)


def _table(schema: dict[str, Any]) -> Iterator[str]:
    required = set(schema.get("required", ()))
    yield "| field | type | meaning |\n| --- | --- | --- |"
    for name, field in schema["properties"].items():
        absent = "" if name in required else "may be absent; "
        meaning = f"{absent}{field.get('description', '')}".removesuffix("; ")
        yield f"| `{name}` | {_type(field)} | {meaning.replace('|', '&#124;')} |"


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return f"`{field['$ref'].rpartition('/')[2]}`"
    if "anyOf" in field or "oneOf" in field:
        return " or ".join(map(_type, field.get("anyOf", field.get("oneOf", ()))))
    if "const" in field or "enum" in field:
        return " or ".join(f"`{json.dumps(value)}`" for value in field.get("enum", [field.get("const")]))
    kinds = field.get("type", "any")
    if kinds == "array" and isinstance(field.get("items"), dict):
        return f"list of {_type(field['items'])}"
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
