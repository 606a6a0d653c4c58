"""Images of digits whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from samdeploy.bundle import Bundle


def write_certain_digits(bundle: Bundle, folder: Path) -> list[Path]:
    """Write five 8x8 digits as PNG files, "0.png" to "4.png", that the bundle's network knows for certain."""
    from sklearn.datasets import load_digits

    from samdeploy.backends import open_session
    from samdeploy.images.decode import prepare

    data = load_digits()
    examples = np.floor(data.images * 255 / 16 + 0.5).astype(np.uint8)
    paths = []
    with open_session(bundle, "pytorch", device="cpu") as session:
        for digit in range(5):
            candidates = examples[data.target == digit][:20]
            logits = session.run(np.stack([prepare(image, bundle.spec.preprocessing) for image in candidates]))
            others = np.delete(logits, digit, axis=1).max(axis=1)
            paths.append(folder / f"{digit}.png")
            Image.fromarray(candidates[int((logits[:, digit] - others).argmax())]).save(paths[-1])
    return paths
