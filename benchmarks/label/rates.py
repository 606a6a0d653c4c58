"""Images a second: `samdeploy label`, `Classifier.stream`, and the loop that people write, in turns.

    python benchmarks/label/rates.py BUNDLE IMAGES [--precision int8] [--rounds 3] [--images-used 1000] [--out FILE]

IMAGES is a folder of photographs; they are written anew as JPEG of 640x480, quality 90.  The loop that people write
decodes with torchvision in a DataLoader with two workers and runs the FP32 graph in ONNX Runtime, batches of 16.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from samdeploy import Classifier
from samdeploy.evaluate.machine import machine, versions
from samdeploy.label.label import label
from samdeploy.label.options import LabelOptions

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images-used", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        files = photographs(options.images, folder, options.images_used)
        found: dict[str, list[float]] = {"label": [], "stream": [], "loop": []}
        with Classifier.open(options.bundle, options.backend, precision=options.precision) as classifier:
            for number in range(options.rounds):
                begin = time.perf_counter()
                done = label(classifier, LabelOptions(str(folder), Path(name) / f"out{number}", batch=BATCH))
                assert done.whole and not done.errors
                found["label"].append(len(files) / (time.perf_counter() - begin))
                begin = time.perf_counter()
                answers = list(classifier.stream(files, batch=BATCH))
                found["stream"].append(len(answers) / (time.perf_counter() - begin))
                begin = time.perf_counter()
                _loop(classifier, files)
                found["loop"].append(len(files) / (time.perf_counter() - begin))
                shutil.rmtree(Path(name) / f"out{number}")
        spec = classifier.bundle.spec
    rates = {name: median(each) for name, each in found.items()}
    for name, rate in rates.items():
        each = ", ".join(f"{one:.1f}" for one in found[name])
        print(f"{name:8}{rate:8.1f} images/s   {rates['label'] / rate:5.2f} of label   ({each})")
    if options.out:
        values = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(), "versions": versions(),
            "command": "benchmarks/label/rates.py BUNDLE IMAGES "
            f"--backend {options.backend} --precision {options.precision} --images-used {options.images_used}",
            "network": f"{spec.arch}, {spec.preprocessing.width} px, {options.backend}, {options.precision}",
            "images": f"{len(files)} JPEG of 640x480, quality 90", "images_per_s": found, "medians": rates,
            "label_over_stream": rates["label"] / rates["stream"], "label_over_loop": rates["label"] / rates["loop"],
        }  # fmt: skip
        options.out.write_text(json.dumps(values, indent=1) + "\n")


def photographs(source: Path, folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    files = []
    for number, path in enumerate(sorted(source.rglob("*.jpg"))[:count]):
        files.append(folder / f"{number:05d}.jpg")
        Image.open(path).convert("RGB").resize((640, 480)).save(files[-1], quality=90)
    return files


def _loop(classifier: Classifier, files: list[Path]) -> None:
    import onnxruntime
    import torch
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2.functional import resize

    size = classifier.bundle.spec.preprocessing

    class Files(torch.utils.data.Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> torch.Tensor:
            image = decode_image(str(files[index]), ImageReadMode.RGB)
            return resize(image, [size.height, size.width], antialias=True).permute(1, 2, 0)

    graph = classifier.bundle.find("graph", precision="fp32")
    assert graph is not None
    session = onnxruntime.InferenceSession(classifier.bundle.root / graph.path, providers=["CPUExecutionProvider"])
    labels: list[int] = []
    for batch in torch.utils.data.DataLoader(Files(), batch_size=BATCH, num_workers=2):
        logits = session.run(None, {"image": np.ascontiguousarray(batch.numpy())})[0]
        labels += logits.argmax(axis=1).tolist()
    assert len(labels) == len(files)


if __name__ == "__main__":
    main()
