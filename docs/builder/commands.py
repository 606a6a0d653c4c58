"""The page of all commands and their options, from the Typer application."""

from __future__ import annotations

import html
import inspect
from collections.abc import Iterator
from typing import Any

import typer.main

from samdeploy.cli import app

# In the order in which they are used; others follow.
ORDER = ("demo-bundle", "data", "train", "reproduce", "import", "models", "export", "eval", "compare", "bench")
ORDER += ("predict", "explain", "serve", "label", "card", "sign", "doctor")


def page() -> str:
    """Markdown: each command with its usage, what it does, its arguments and its options."""
    group: Any = typer.main.get_command(app)
    names = [*filter(group.commands.__contains__, ORDER), *sorted(set(group.commands) - set(ORDER))]
    parts = ["# Commands\n", _text(group.help), "\n\n| command | what it does |\n| --- | --- |"]
    parts += [f"| [`{name}`](#{name}) | {_cell(_summary(group.commands[name]))} |" for name in names]
    parts.append("\n[Errors and exit codes](errors.md) lists what a command ends with.\n")
    for name in names:
        parts += _section(name, group.commands[name])
    return "\n".join(parts) + "\n"


def _section(name: str, command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=f"samdeploy {name}")
    yield f"\n## {name}\n"
    yield f"```text\nsamdeploy {name} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    yield _text(command.help)
    for kind in ("argument", "option"):
        records = [part.get_help_record(context) for part in command.params if part.param_type_name == kind]
        if records:
            yield f"\n| {kind} | meaning |\n| --- | --- |"
            yield from (f"| {_code(names)} | {_cell(meaning)} |" for names, meaning in filter(None, records))


def _summary(command: Any) -> str:
    return inspect.cleandoc(command.help or "").split("\n\n")[0]


def _text(text: str | None) -> str:
    return html.escape(inspect.cleandoc(text or ""), quote=False)


def _cell(text: str | None) -> str:
    return html.escape(" ".join((text or "").split()), quote=False).replace("|", "\\|").replace("*", "\\*")


def _code(text: str) -> str:
    """Not in backticks, where a table shows the escape of a stroke; and nothing in it is Markdown."""
    marks = "".join(one if one.isalnum() or one in " -." else f"&#{ord(one)};" for one in text)
    return f"<code>{marks}</code>"
