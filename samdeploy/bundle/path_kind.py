"""What a path is that someone named where another kind is expected, for errors that name the right command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Literal

from samdeploy.bundle.names import BUNDLE_FOLDER, MANIFEST, RECIPE_FILE, RUN_FILE

PathKind = Literal[
    "nothing", "URL", "standard input", "image", "archive", "ONNX graph", "engine", "weight file", "recipe", "file",
    "bundle", "run", "run without a bundle", "unfinished run", "folder of runs", "folder of images", "empty folder",
    "folder",
]  # fmt: skip

# Not `samdeploy.images.walk.IMAGE_SUFFIXES`: here a kind that cannot be read is an image, too.
_SUFFIXES: dict[str, PathKind] = {
    **dict.fromkeys(
        (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif", ".heic", ".jp2", ".ppm"),
        "image",
    ),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".7z", ".rar", ".zst"), "archive"),
    **dict.fromkeys((".plan", ".engine", ".trt"), "engine"),
    **dict.fromkeys((".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".h5"), "weight file"),
    ".onnx": "ONNX graph",
    ".toml": "recipe",
}
_MOST_LOOKED_AT = 200


def path_kind(text: str | Path) -> PathKind:
    """What `text` names; files go by their suffix, folders by what lies in them."""
    text = str(text)
    if text == "-":
        return "standard input"
    if re.match(r"[a-z][a-z0-9+.-]+:/", text, re.IGNORECASE):
        return "URL"
    path = Path(text)
    if path.is_dir():
        return _folder_kind(path)
    return _SUFFIXES.get(path.suffix.lower(), "file") if path.exists() else "nothing"


def has_image_suffix(path: Path) -> bool:
    """Whether a file of this name would be an image."""
    return _SUFFIXES.get(path.suffix.lower()) == "image"


def a(kind: PathKind) -> str:
    """The kind with its article: "an image", "standard input"."""
    if kind in ("nothing", "standard input"):
        return kind
    return f"{'an' if kind[0] in 'aeioO' else 'a'} {kind}"


def not_a_bundle(path: str | Path) -> str:
    """What `path` is where it is no bundle, with the command or the name that was meant; "" for a bundle."""
    kind = path_kind(path)
    if kind == "bundle":
        return ""
    path, quoted = Path(path), shlex.quote(str(path))
    if path.is_file() and (path.parent / MANIFEST).exists():
        return f"is {a(kind)} inside a bundle; name its folder, {path.parent}"
    return {
        "nothing": "no such folder; make one: samdeploy export",
        "URL": "is a URL; download it, then name the bundle's folder",
        "image": f"is an image; to classify it: samdeploy predict BUNDLE {path}",
        "archive": "is an archive; unpack it, then name the bundle's folder",
        "recipe": f"is a recipe; to make a bundle: samdeploy train {path}; samdeploy export",
        "run": f"is a run; its bundle is {path / BUNDLE_FOLDER}",
        "run without a bundle": f"is a run that has no bundle yet; make it: samdeploy export {path}",
        "unfinished run": f"is a run without a finished epoch; go on with: samdeploy train --resume {path}",
        "folder of runs": f"is a folder of runs; name one of them, or take the newest: --runs {path}",
        "folder of images": "is a folder of images, not a bundle (the folder that samdeploy export makes); to use "
        f"them: samdeploy predict BUNDLE {quoted}, or, if it has a folder for each class, "
        f"samdeploy eval BUNDLE --data {quoted}",
        "empty folder": "is an empty folder; make a bundle: samdeploy export",
        "folder": f"is a folder without {MANIFEST}; name a bundle, the folder that samdeploy export makes",
    }.get(kind, f"is {a(kind)}; name a bundle, the folder that samdeploy export makes")


def _folder_kind(path: Path) -> PathKind:
    if (path / MANIFEST).exists():
        return "bundle"
    if (path / BUNDLE_FOLDER / MANIFEST).exists():
        return "run"
    if (path / RUN_FILE).exists():
        return "run without a bundle"
    if (path / RECIPE_FILE).is_file():
        return "unfinished run"
    try:
        inside = sorted(path.iterdir())
    except OSError:
        return "folder"
    if not inside:
        return "empty folder"
    if any((folder / RUN_FILE).exists() for folder in inside):
        return "folder of runs"
    return "folder of images" if _holds_images(inside, depth=2) else "folder"


def _holds_images(inside: list[Path], depth: int) -> bool:
    """Whether an image lies there or in a folder not much further below; of a large folder only a part is looked at."""
    if any(map(has_image_suffix, inside[:_MOST_LOOKED_AT])):
        return True
    folders = [path for path in inside[:_MOST_LOOKED_AT] if path.is_dir() and not path.is_symlink()] if depth else []
    for folder in folders[:10]:
        try:
            if _holds_images(list(folder.iterdir()), depth - 1):
                return True
        except OSError:
            continue
    return False
