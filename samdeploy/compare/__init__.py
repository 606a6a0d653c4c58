"""Two networks on the same images: which is better, by how much, whether that is proven, and where they differ."""

from samdeploy.compare.networks import compare_networks
from samdeploy.compare.options import CompareOptions
from samdeploy.compare.result import CompareReport

__all__ = ["CompareOptions", "CompareReport", "compare_networks"]
