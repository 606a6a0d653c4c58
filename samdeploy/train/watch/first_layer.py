"""Which layer was the first to give something infinite: the bad batch is run again with a look at every layer.

The stepper keeps a bad step away from the weights, so they are still those that it met.
"""

from __future__ import annotations

import contextlib

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from samdeploy.train.checkpoints.state import TrainState


class _FirstBad:
    def __init__(self) -> None:
        self.found = ""

    def hook(self, name: str, module: nn.Module) -> RemovableHandle:
        def look(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if self.found or not isinstance(output, torch.Tensor) or bool(torch.isfinite(output).all()):
                return
            largest = max([float(value.detach().abs().max()) for value in inputs if isinstance(value, torch.Tensor)])
            weights = [float(weight.detach().abs().max()) for weight in module.parameters()]
            made = f", its weights up to {max(weights):.3g}" if weights else ""
            self.found = f"'{name}' ({type(module).__name__}, its input up to {largest:.3g}{made})"

        return module.register_forward_hook(look)


def first_bad_layer(state: TrainState, step: int) -> str:
    """Run the batch of `step` again; ", first in layer ..." for an error's text.

    Weights are left alone; gradients and batch norm's running means are not, since training ends here.
    """
    model = state.model
    model.train()
    first = _FirstBad()
    # The hooks of the parts are called before those of the whole.
    handles = [first.hook(name, module) for name, module in model.named_modules() if name]
    state.stepper.compile(False)  # hooks are for the network as it is written
    try:
        with contextlib.suppress(RuntimeError):  # out of memory: then there is no name
            state.stepper.passes(state.batches[step], state.epoch, step)
    finally:
        for handle in handles:
            handle.remove()
    if first.found:
        return f", first in the output of {first.found}"
    # Backward goes through the layers from the last to the first.
    for name, weight in reversed(list(model.named_parameters())):
        if weight.grad is not None and not bool(torch.isfinite(weight.grad).all()):
            return f", first in the gradient of '{name}'"
    # So it was with bf16 on a CPU at one position (UNSOUND_PX in precision_probe.py), before that was excluded.
    return (
        ", and not again when the step was repeated: not the network's fault but the arithmetic's or the machine's; "
        "train again, with --set training.precision=fp32 if it comes back"
    )
