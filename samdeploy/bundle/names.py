"""Names of the files of a bundle, and of the run around it."""

from __future__ import annotations

MANIFEST = "manifest.json"

RUN_FILE = "run.json"
RECIPE_FILE = "recipe.toml"
HISTORY_FILE = "history.csv"
CONFUSION_FILE = "confusion.csv"
CLASSES_FILE = "classes.csv"
WEIGHTS_FILE = "weights.safetensors"
LEAKS_FILE = "leaks.json"
HASHES_FILE = "hashes.npz"
BUNDLE_FOLDER = "bundle"

# The data set of the images that an imported network is judged on.
JUDGED_FOLDER = "judged-folder"


def set_name(dataset: str) -> str:
    """What a data set is called; the images that `import` was given have only a name of our own."""
    return "your own images" if dataset == JUDGED_FOLDER else dataset
