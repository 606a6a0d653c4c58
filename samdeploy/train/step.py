"""One optimiser step."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from samdeploy.train.device import Autocast
from samdeploy.train.recipe import TrainingSection


class Stepper:
    """Forward, backward and update; nothing in here waits for the GPU."""

    def __init__(
        self,
        model: nn.Module,
        normalize: nn.Module,
        training: TrainingSection,
        device: torch.device,
        autocast: Autocast,
    ) -> None:
        """
        Args:
            model: float32 [N, 3, H, W], normalised -> logits [N, K]; its weights are updated in place.
            normalize: uint8 [N, H, W, 3] -> float32 [N, 3, H, W], normalised.
            training: optimiser settings.
            device: where model and batches are.
            autocast: what the passes compute in; None is float32.
        """
        self._model, self._normalize, self._training = model, normalize, training
        self._device, self._autocast = device, autocast
        self._optimizer = _adam(model, training, fused=device.type == "cuda")
        # Only fp16 needs the loss scaled: bf16 has float32's range.
        self._scaler = torch.amp.GradScaler(device.type, enabled=autocast == torch.float16)

    def step(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Learn one batch.

        Args:
            images: uint8 [n, H, W, 3] RGB, on the device.
            labels: int64 [n], on the device.
            rate: the learning rate of this step.

        Returns:
            The mean loss (float32 []) and the number of right answers (int64 []), both on the device.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        enabled = self._autocast is not None
        with torch.autocast(self._device.type, dtype=self._autocast or torch.bfloat16, enabled=enabled):
            logits = self._model(self._normalize(images)).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self._training.label_smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self._training.clip_norm:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._model.parameters(), self._training.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach(), (logits.detach().argmax(1) == labels).sum()


def _adam(model: nn.Module, training: TrainingSection, *, fused: bool) -> torch.optim.Optimizer:
    """AdamW, which is Adam where weight_decay is 0; biases and batch norms are not decayed."""
    groups = [
        {"params": [weight for weight in model.parameters() if weight.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [weight for weight in model.parameters() if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    # The fused kernel also keeps the scaler's check for infinities on the GPU.
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=fused)
