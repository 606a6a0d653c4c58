"""`samdeploy import`: from a network that was trained elsewhere to a run directory, which `export` takes.

Imports torch.
"""

from samdeploy.importing.importing import ImportOptions, import_network

__all__ = ["ImportOptions", "import_network"]
