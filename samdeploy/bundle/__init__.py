"""The bundle: one directory that carries a verified classifier."""

from samdeploy.bundle.bundle import Bundle
from samdeploy.bundle.open import open_bundle

__all__ = ["Bundle", "open_bundle"]
