"""From an image to the model's input, for applications: `decode`, `resize`, `prepare`."""

from samdeploy.images.decode import Source, decode, prepare, resize

__all__ = ["Source", "decode", "prepare", "resize"]
