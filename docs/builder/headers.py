"""The page of the C and C++ library: its two headers."""

from __future__ import annotations

from pathlib import Path

INCLUDE = Path(__file__).parents[2] / "cpp" / "include"


def page() -> str:
    """Markdown: both headers in full; their comments are the reference."""
    parts = ["# C and C++\n", "[Embedding](../embedding.md#c-and-c) says how to build, link and ship the library.\n"]
    for name, language, title in (("samdeploy.hpp", "cpp", "C++17"), ("samdeploy.h", "c", "C")):
        parts.append(f"## {title}: `{name}`\n\n```{language}\n{(INCLUDE / name).read_text(encoding='utf-8')}```\n")
    return "\n".join(parts)
