"""Networks and their specs, as the tests of export use them."""

from tests.export.conftest import network, pictures, spec_of

__all__ = ["network", "pictures", "spec_of"]
