"""The page of exit codes and of every error class, from samdeploy/errors.py."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from samdeploy import errors

# Exit codes are decided in samdeploy/cli/app.py and samdeploy/cli/endings.py.
_CODES = """\
| exit code | meaning |
| --- | --- |
| 0 | done; for `eval`, every engine that ran passed |
| 1 | an engine did not pass or cannot run here, a package is missing, or some of many images could not be read |
| 2 | the input is wrong: an argument, a file, a recipe, a bundle; or no image could be read |
| 129 | the terminal was closed (SIGHUP) |
| 130 | Ctrl-C |
| 141 | the output was closed (a pipe into `head`) |
| 143 | SIGTERM |

`predict` and `explain` skip images that cannot be read and exit with 1, or with 2 if none could be read. `train`,
`eval` and `bench` need all images; `compare` needs those with labels. `label` writes each error as a row, and exits
with 1 if no row has a label.
"""


def page() -> str:
    """Markdown: the exit codes, the tree of classes, and cause and cure of each class."""
    parts = ["# Errors and exit codes\n", _CODES]
    parts.append(
        "A command prints an error as one line on standard error, without a traceback, and exits with the code of its "
        "class. In Python, `samdeploy.SamdeployError` catches all of them. The text says what was found, what was "
        "expected and what to do.\n"
    )
    parts.append(f"```text\n{inspect.cleandoc((errors.__doc__ or '').split('::')[1].split('Every text')[0])}\n```\n")
    parts += ["| class | exit code | cause | cure |", "| --- | ---: | --- | --- |"]
    parts += [f"| `{kind.__name__}` | {kind.exit_code} | {' | '.join(cause_and_cure(kind))} |" for kind in classes()]
    return "\n".join(parts) + "\n"


def classes() -> Iterator[type[errors.SamdeployError]]:
    """Every error class, in the order of the file."""
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.SamdeployError):
            yield value


def cause_and_cure(kind: type[errors.SamdeployError]) -> tuple[str, str]:
    """The first paragraph of a class's docstring, and the one that begins with "Cure:".

    Raises:
        ValueError: the docstring has no cure.
    """
    cause, mark, cure = " ".join(inspect.cleandoc(kind.__doc__ or "").split()).partition(" Cure: ")
    if not mark:
        raise ValueError(f"{kind.__name__} in samdeploy/errors.py has no paragraph 'Cure: ...' in its docstring")
    return cause, cure
