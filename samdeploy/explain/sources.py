"""Which images to explain, and how each is read: once for the network and once for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from samdeploy.arrays import UInt8Array
from samdeploy.backends.names import check_names
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.spec import Preprocessing
from samdeploy.errors import ImageError, InputError
from samdeploy.explain.region import Region, seen_region
from samdeploy.files import write_atomic
from samdeploy.images.decode import decode, prepare, resize
from samdeploy.images.unreadable import named_images
from samdeploy.runs.locate import bundle_and_images, run_name

OUT = Path("explain")
# An image is drawn with its longer side between these, in pixels: an 8x8 digit would be a speck, and the maps of a
# 50-megapixel photograph would hold a few dozen cells in gigabytes.
MIN_SIDE, MAX_SIDE = 256, 1280


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """What `samdeploy explain` is asked for.

    Attributes:
        runs_root: where the newest bundle is looked for.
        out: folder that the images go to; None: `OUT`, in it a folder that is called as the bundle's run.
        top: classes per image.
        backend: "auto", or a backend that computes maps.
        device: "cpu", "cuda" or "auto".

    Raises:
        InputError: an unknown backend or device.
    """

    runs_root: Path
    out: Path | None = None
    top: int = 3
    backend: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_names(self.backend, self.device, None, also="auto")


@dataclass(frozen=True, slots=True)
class Source:
    """One image.

    Attributes:
        title: how it is called in lines and captions.
        name: its path below the folder that was named, or its own name; file names are made from it.
        path: of the file; None for a golden image.
        prepared: uint8 [H, W, 3] for a golden image, which exists in the network's size alone.
        problem: why there is nothing to read.
    """

    title: str
    name: str
    path: Path | None = None
    prepared: UInt8Array | None = None
    problem: ImageError | None = None


@dataclass(frozen=True, slots=True)
class ReadImage:
    """An image, read.

    Attributes:
        prepared: uint8 [H, W, 3] RGB, what the network is fed.
        shown: uint8 [h, w, 3] RGB, the whole upright image, with its longer side in `MIN_SIDE` to `MAX_SIDE`.
        region: what of `shown` is in `prepared`.
    """

    prepared: UInt8Array
    shown: UInt8Array
    region: Region


def write_out(path: Path, content: bytes) -> None:
    """Write one file of `ExplainOptions.out`; the folder is made with the first one.

    Raises:
        InputError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); name another folder: --out DIR") from None


def find_sources(paths: Sequence[Path], options: ExplainOptions) -> tuple[Bundle, Path, list[Source]]:
    """The bundle, where its maps go, and the images below `paths`; the bundle's golden ones where none is named.

    Where the maps go below a folder of images, what is in it is left out: maps of an earlier call.

    Raises:
        InputError: there is no bundle, or `out` is no folder.
        ImageError: folders were named, and none of them holds an image.
        BundleError: the bundle is damaged.
    """
    out = OUT if options.out is None else options.out
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is a file; name a folder for the images")
    folder, named = bundle_and_images(paths, options.runs_root)
    bundle = open_bundle(folder)
    sources = [
        Source(str(image.path), image.name, image.path, problem=image.problem) for image in named_images(named, out)
    ]
    return (
        bundle,
        out if options.out is not None else out / run_name(bundle),
        sources
        or [
            Source(f"golden image {index}", f"golden-{index}", prepared=image)
            for index, image in enumerate(bundle.golden()[0])
        ],
    )


def read_image(source: Source, preprocessing: Preprocessing) -> ReadImage:
    """Decode once, for the network and for the eye.

    Raises:
        ImageError: the file is missing, damaged or of an unusable kind.
    """
    if source.prepared is not None:
        return ReadImage(source.prepared, _for_the_eye(source.prepared), Region())
    image = decode(_path(source))
    try:
        return decoded_image(image, preprocessing)
    except ImageError as error:
        raise ImageError(f"{source.path}: {error}") from None


def decoded_image(image: UInt8Array, preprocessing: Preprocessing) -> ReadImage:
    """A decoded image, uint8 [h, w, 3] RGB, for the network and for the eye.

    Raises:
        ImageError: its sides cannot be resized.
    """
    region = seen_region(preprocessing, image.shape[0], image.shape[1])
    return ReadImage(resize(image, preprocessing), _for_the_eye(image), region)


def prepare_only(source: Source, preprocessing: Preprocessing) -> UInt8Array:
    """What the network is fed, uint8 [H, W, 3] RGB.

    Raises:
        ImageError: as `read_image` does.
    """
    return source.prepared if source.prepared is not None else prepare(_path(source), preprocessing)


def _path(source: Source) -> Path:
    if source.problem is not None:
        raise source.problem
    assert source.path is not None
    return source.path


def _for_the_eye(image: UInt8Array) -> UInt8Array:
    height, width = image.shape[:2]
    longer = max(height, width)
    if longer < MIN_SIDE:  # by a whole factor, so that every pixel stays the square it is
        factor = -(-MIN_SIDE // longer)
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    if longer <= MAX_SIDE:
        return image
    size = (max(1, round(width * MAX_SIDE / longer)), max(1, round(height * MAX_SIDE / longer)))
    pillow = Image.fromarray(image)
    # Whole steps first: an exact filter over a 50-megapixel image takes a second, and nobody sees the difference.
    return np.array(pillow.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0), dtype=np.uint8)
