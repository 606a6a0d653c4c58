"""Where a network averages its features before one linear layer, found by running it once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from samdeploy.bundle.spec import Preprocessing
from samdeploy.models.family import FeaturesAndHead

# Of the pooled features' largest value: the mean, summed in another order in float32.
_SAME = 1e-4


def find_features_and_head(model: nn.Module, size: Preprocessing) -> FeaturesAndHead | None:
    """The last module whose output, averaged over its cells, is what the final linear layer reads.

    Whether features are stored as [N, C, h, w] or [N, h, w, C] is found the same way.

    Args:
        model: float32 [N, 3, H, W] -> [N, K]; left in eval mode.
        size: has the height and the width of its images.

    Returns:
        None where the logits come from elsewhere, or the features have a single cell.
    """
    device = next(model.parameters()).device
    example = torch.rand(1, 3, size.height, size.width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    maps: list[tuple[nn.Module, torch.Tensor]] = []
    heads: list[tuple[nn.Linear, torch.Tensor, torch.Tensor]] = []

    def watch(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if not isinstance(output, torch.Tensor):
            return
        if isinstance(module, nn.Linear) and output.ndim == 2 and isinstance(inputs[0], torch.Tensor):
            heads.append((module, inputs[0], output))
        elif output.ndim == 4 and module is not model:
            maps.append((module, output))

    with torch.inference_mode(), _hooked(model.modules(), watch):
        logits = model.eval()(example.to(device))
    if not heads or not torch.equal(heads[-1][2], logits):
        return None
    head, pooled, _ = heads[-1]
    for module, output in reversed(maps):
        for axes, channels in (((2, 3), 1), ((1, 2), 3)):
            cells = output.shape[axes[0]] * output.shape[axes[1]]
            if output.shape[channels] == pooled.shape[1] and cells > 1 and _is_mean(output, axes, pooled):
                return FeaturesAndHead(_Features(model, module, is_last=channels == 3), head)
    return None


class _Features:
    """A network up to the output of one of its modules."""

    def __init__(self, model: nn.Module, module: nn.Module, *, is_last: bool) -> None:
        """`is_last`: whether channels are the last axis."""
        self._model, self._module, self._is_last = model, module, is_last

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """float [N, 3, H, W] -> [N, C, h, w]."""
        found: list[torch.Tensor] = []
        thread = threading.get_ident()  # others may run the same network

        def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            if threading.get_ident() == thread:
                found.append(output)

        with _hooked([self._module], keep):
            self._model(x)
        # A module that runs several times gives its last output.
        return found[-1].permute(0, 3, 1, 2) if self._is_last else found[-1]


def _is_mean(features: torch.Tensor, axes: tuple[int, int], pooled: torch.Tensor) -> bool:
    off = (features.mean(dim=axes) - pooled).abs().max()
    return bool(off <= _SAME * pooled.abs().max())


@contextmanager
def _hooked(modules: Iterable[nn.Module], watch: Callable[..., None]) -> Iterator[None]:
    handles = [module.register_forward_hook(watch) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
