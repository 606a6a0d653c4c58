"""The command line: a file per stage of the work, a function per command; what a command needs is imported inside it.

`samdeploy --help` lists the commands in the order in which they are imported here.
"""

from samdeploy.cli import demo, data, train, reproduce, models, importing, export, evaluate, compare  # isort: skip
from samdeploy.cli import apply, label, report, serve, bench, share, doctor  # isort: skip
from samdeploy.cli.app import app, main

__all__ = [
    "app",
    "apply",
    "bench",
    "compare",
    "data",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "importing",
    "label",
    "main",
    "models",
    "report",
    "reproduce",
    "serve",
    "share",
    "train",
]
