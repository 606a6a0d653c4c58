"""Networks and their specs, as the tests of export use them."""

from tests.export.conftest import examples, network, spec_of

__all__ = ["examples", "network", "spec_of"]
