"""`samdeploy explain`: for every image the maps of its most probable classes, and a contact sheet of all."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from samdeploy.arrays import Float32Array
from samdeploy.backends import availability, open_session
from samdeploy.backends.registry import open_first
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle import Bundle
from samdeploy.errors import AnswerError, ImageError
from samdeploy.explain.names import UniqueNames, image_text
from samdeploy.explain.overlay import overlay
from samdeploy.explain.region import place_map
from samdeploy.explain.sheet import TILES, Tile, draw_sheet, tile
from samdeploy.explain.sources import ExplainOptions, ReadImage, Source, find_sources, read_image, write_out
from samdeploy.images.unreadable import Unread
from samdeploy.progress import progress_bar
from samdeploy.ranking import not_finite, softmax
from samdeploy.terminal import printable

SHEET_FILE = "contact-sheet.png"
# Images per call of the runtime; each is held at up to 1280 pixels a side, which is 5 MB.
_GROUP = 8


def explain_paths(paths: Sequence[Path], options: ExplainOptions) -> bool:
    """Write `<image>.<class>.png` for the top classes of every image, and the contact sheets.

    Red raises the class's logit, blue lowers it; the colours of all maps of one image share a scale.

    Args:
        paths: images and folders; the first may be a bundle, else the newest is taken.

    Returns:
        Whether all images could be read.

    Raises:
        InputError: an unusable `out`.
        ImageError: not one image could be read.
        BundleError, BackendUnavailable: the bundle's maps cannot be had.
    """
    bundle, out, sources = find_sources(paths, options)
    with _open_maps(bundle, options) as session:
        print(f"{bundle.root}: {session.backend}, {session.precision}, {session.device}", file=sys.stderr)
        writer, unread = _Writer(bundle, out, options.top, session.backend), Unread()
        with progress_bar("explaining", len(sources)) as advance:
            for start in range(0, len(sources), _GROUP):
                group = sources[start : start + _GROUP]
                images = [_read(source, bundle) for source in group]
                good = [image for image in images if isinstance(image, ReadImage)]
                batch = [image.prepared for image in good]
                rest = zip(*session.run_with_maps(np.stack(batch)), strict=True) if good else iter(())
                for source, image in zip(group, images, strict=True):
                    if isinstance(image, ImageError):
                        unread.add(image)
                        continue
                    logits, maps = next(rest)
                    error = not_finite(logits, session.precision)
                    if error:
                        unread.add(AnswerError(f"{source.title}: {error}"))
                    else:
                        print(writer.add(source, image, logits, maps))
                advance(len(group), f"{unread.count} broken" if unread.count else "")
    for line in writer.close():
        print(line)
    return unread.none_of(len(sources))


def _open_maps(bundle: Bundle, options: ExplainOptions) -> CheckedSession:
    if options.backend != "auto":
        return open_session(bundle, options.backend, device=options.device, maps=True)
    session, passed_over = open_first(bundle, device=options.device, maps=True)
    for name, reason in passed_over.items():
        if availability(name) is None:  # not worth a line where the runtime is not there at all
            print(f"not run with {name}: {printable(reason)}", file=sys.stderr)
    return session


def _read(source: Source, bundle: Bundle) -> ReadImage | ImageError:
    try:
        return read_image(source, bundle.spec.preprocessing)
    except ImageError as error:
        return error


class _Writer:
    """Writes the files of one call."""

    def __init__(self, bundle: Bundle, out: Path, top: int, backend: str) -> None:
        self._out, self._top = out, min(top, len(bundle.spec.classes))
        self._classes, self._preprocessing = bundle.spec.classes, bundle.spec.preprocessing
        self._temperature = bundle.temperature
        names = UniqueNames()
        self._class_names = [names.take(label, f"class{index}") for index, label in enumerate(self._classes)]
        self._names = UniqueNames()
        self._title = f"{bundle.spec.arch}, {backend}: image, map of the most probable class"
        self._cells = (1, 1)
        self._tiles: list[Tile] = []
        self._sheets = self._maps = 0

    def add(self, source: Source, image: ReadImage, logits: Float32Array, maps: Float32Array) -> str:
        """Write the maps [K, h, w] of one image; returns the line that names its classes."""
        probabilities = softmax(logits, self._temperature)
        order = np.argsort(-logits, kind="stable")[: self._top]
        name = self._names.take(image_text(source.name), "image")
        # One scale per image: a class that is hardly there must not look as strong as the one that is.
        scale = float(np.abs(maps[order]).max()) or 1.0
        self._cells = maps.shape[1], maps.shape[2]
        for rank, index in enumerate(order):
            shape = image.shown.shape[0], image.shown.shape[1]
            values, seen = place_map(maps[index], image.region, self._preprocessing, shape)
            drawn = overlay(image.shown, values, seen, scale)
            answer = f"{self._classes[index]} {100 * probabilities[index]:.2f} %"
            about = (
                f"{answer}; class activation map of {source.name}. Red raises the class's logit, blue lowers it; "
                f"full colour is +-{scale:.4g}, for every map of this image. Its mean plus the class's bias is the "
                f"logit {logits[index]:.4g}."
            )
            _write_png(self._out / f"{name}.{self._class_names[index]}.png", Image.fromarray(drawn), about)
            self._maps += 1
            if rank == 0:
                self._tiles.append(tile(image.shown, drawn, source.name, answer))
        if len(self._tiles) == TILES:
            self._write_sheet()
        answers = ", ".join(f"{self._classes[i]} {100 * probabilities[i]:.2f} %" for i in order)
        return f"{printable(f'{source.title}: {answers} -> {self._out / name}')}.*.png"

    def close(self) -> list[str]:
        """Write what is left; returns the lines that sum up."""
        if self._tiles:
            self._write_sheet()
        if not self._maps:
            return []
        sheet = f"{self._out / SHEET_FILE}" + (f" (and {self._sheets - 1} more)" if self._sheets > 1 else "")
        lines = [
            f"{self._maps} map{'s' * (self._maps != 1)} in {self._out}, all at a glance: {sheet}",
            "red raises the class's logit, blue lowers it; maps of one image share a scale",
        ]
        return lines + ([self._coarse()] if self._coarse() else [])

    def _coarse(self) -> str:
        height, width = self._cells
        size = f"{self._preprocessing.height}x{self._preprocessing.width}"
        if height * width == 1:
            return f"at {size} pixels a map is one cell: it says how much, and nothing about where"
        return f"at {size} pixels a map has {height}x{width} cells" if height * width < 16 else ""

    def _write_sheet(self) -> None:
        self._sheets += 1
        path = self._out / (SHEET_FILE if self._sheets == 1 else f"contact-sheet-{self._sheets}.png")
        note = "blue lowers the class's logit, red raises it; full colour: largest value among the image's maps"
        coarse = self._coarse()
        page = draw_sheet(self._tiles, self._title, [note, coarse] if coarse else [note])
        _write_png(path, page, f"{self._title}; {note}")
        self._tiles.clear()


def _write_png(path: Path, image: Image.Image, description: str) -> None:
    about = PngImagePlugin.PngInfo()
    about.add_itxt("Description", description.encode("utf-8", "replace").decode("utf-8"))
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=about)
    write_out(path, content.getvalue())
