"""What people read: printable names, and how tables, numbers and verdicts are written."""

from samdeploy.terminal.escape import is_misread, printable

__all__ = ["is_misread", "printable"]
