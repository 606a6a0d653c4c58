"""`samdeploy import`: from a network that was trained elsewhere to a run directory, which `export` takes.

`early` finds mistakes before torch is loaded; `importing` loads it.
"""
