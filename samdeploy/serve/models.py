"""The models of a server: what a bundle on the command line is called, and which one an address means."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from samdeploy.errors import InputError
from samdeploy.images.walk import natural_key
from samdeploy.runs.locate import address_name, bundle_of
from samdeploy.serve.errors import RequestError
from samdeploy.serve.served import Place, ServedModel

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def read_place(text: str) -> Place:
    """What a bundle on the command line is called, and where it lies.

    Raises:
        InputError: the name is empty, or has other characters than letters, digits, and ._- inside.
    """
    name, separator, path = text.partition("=")
    if text.startswith("="):
        raise InputError(f"{text}: no name found before '='; NAME=PATH expected")
    if not separator or "/" in name:
        name, path = "", text
    name, colon, version = name.partition(":")
    version = version if colon else "1"
    root = bundle_of(Path(path))
    if not name:
        name = address_name(root)
    for part, what in ((name, "name"), (version, "version")):
        if not _NAME.fullmatch(part):
            raise InputError(f"{text}: {what} {part!r} found; a letter or digit, then also . _ - expected")
    return Place(name, version, root)


def read_places(texts: Sequence[str]) -> tuple[Place, ...]:
    """All bundles of a command line; see `read_place`.

    Raises:
        InputError: also, two of one name and version.
    """
    places = tuple(read_place(text) for text in texts)
    seen: set[tuple[str, str]] = set()
    for place in places:
        if (place.name, place.version) in seen:
            raise InputError(
                f"two bundles would be served as {place.name}:{place.version}; name them apart: NAME[:VERSION]=PATH"
            )
        seen.add((place.name, place.version))
    return places


class Models:
    """All models of a server, by name and version; where no version is named, the highest is meant."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.all = tuple(models)
        self._by_name: dict[str, dict[str, ServedModel]] = {}
        for model in models:
            self._by_name.setdefault(model.name, {})[model.version] = model
        for name, versions in self._by_name.items():
            self._by_name[name] = dict(sorted(versions.items(), key=lambda item: natural_key(item[0])))

    def find(self, name: str, version: str | None = None) -> ServedModel:
        """
        Raises:
            RequestError: 404.
        """
        versions = self._by_name.get(name)
        if versions is None:
            raise RequestError(404, f"no model {name[:100]!r} is served here; there are: {', '.join(self._by_name)}")
        if version is None:
            return next(reversed(versions.values()))
        if version not in versions:
            raise RequestError(
                404, f"no version {version[:100]!r} of {name!r} is served here; there are: {', '.join(versions)}"
            )
        return versions[version]

    def versions(self, name: str) -> list[str]:
        """Of a model, the lowest first."""
        return list(self._by_name[name])

    @property
    def newest_first(self) -> list[ServedModel]:
        """All, of each name the highest version first."""
        return [model for versions in self._by_name.values() for model in reversed(versions.values())]

    @property
    def names(self) -> Collection[str]:
        """Of the models."""
        return self._by_name.keys()

    @property
    def ready(self) -> bool:
        """Whether all are."""
        return all(model.ready for model in self.all)

    def count_all(self) -> None:
        """Bring the metrics of all up to now."""
        for model in self.all:
            model.count_now()

    def close(self) -> None:
        """End all engines."""
        for model in self.all:
            with suppress(Exception):  # the others shall be closed, too
                model.close()
