"""One optimiser step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from samdeploy.train.device import Compute
from samdeploy.train.loop.ahead import Ahead, Batch, Place
from samdeploy.train.loop.batches import StoredImages
from samdeploy.train.loop.frozen import freeze
from samdeploy.train.loop.optimizer import STATE, make_optimizer, set_rate
from samdeploy.train.loop.seeds import StepRandomness
from samdeploy.train.recipe.recipe import TrainingSection

# (uint8 [n, H, W, 3], int64 [n], generator) -> (float32 [n, 3, H, W] normalised, int64 [n] or float32 [n, K]).
Augmentation = Callable[[torch.Tensor, torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]]

_SOUND = torch.iinfo(torch.int64).max


class Stepper:
    """Forward, backward and update; nothing in here waits for the GPU.

    A step whose loss or gradient is not finite never reaches the weights, and neither does any after it: whoever looks
    at the losses later still finds the weights that the bad step met, and can repeat it.

    Attributes:
        optimizer: over all weights of `model`; those that are frozen have no gradient.
        scaler: of the loss; does nothing but in fp16.
        bad_step: int64 [], on the device: the first step of the epoch that was not finite, or `SOUND`.
        in_step: whether a step is half done, so that `buffers` holds what batch norm knew before it.
    """

    SOUND = _SOUND

    def __init__(
        self,
        model: nn.Module,
        stored: StoredImages,
        augment_in: Callable[[int], Augmentation],
        training: TrainingSection,
        compute: Compute,
        *,
        arch: str = "",
        class_weights: torch.Tensor | None = None,
    ) -> None:
        """
        Args:
            model: float32 [N, 3, H, W], normalised -> logits [N, K]; its weights are updated in place.
            stored: the training split.
            augment_in: from stored to learnt images, in the epoch of a number, from 1.
            training: optimiser settings.
            compute: where, in which precision, and with whom.
            arch: of `model`; for `training.layer_decay`.
            class_weights: float32 [K], of the loss; None: all classes weigh 1.
        """
        self.model, self._stored, self._augment_in, self._training = model, stored, augment_in, training
        self._device, self._autocast, self._ranks = compute.device, compute.autocast, compute.ranks
        device = self._device
        self._class_weights = None if class_weights is None else class_weights.to(device)
        self._wrapped = self._ranks.wrap(model, device, training.sync_batch_norm)
        self._forward: Callable[[torch.Tensor], torch.Tensor] = self._wrapped
        self._randomness = StepRandomness(training.seed, self._ranks.rank, device)
        self._ahead = Ahead(self._prepare, device)
        self._weights = list(model.parameters())
        self._buffers = list(model.buffers())
        self.buffers = [buffer.clone() for buffer in self._buffers]
        self.in_step = False
        self.optimizer = make_optimizer(model, arch, training)
        # Only fp16 needs the loss scaled: bf16 has float32's range.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self._autocast == torch.float16)
        self.bad_step = torch.full((), _SOUND, dtype=torch.int64, device=device)

    def compile(self, wanted: bool) -> None:
        """Run the network through torch.compile from the next step on, or as it is written."""
        self._forward = torch.compile(self._wrapped) if wanted else self._wrapped

    @property
    def is_compiled(self) -> bool:
        """Whether the network runs through torch.compile now."""
        return self._forward is not self._wrapped

    def freeze(self, frozen: frozenset[str]) -> None:
        """Let all weights but those of these names learn from the next step on."""
        if freeze(self.model, frozen):
            is_compiled = self.is_compiled
            # Ranks exchange the gradients of what could learn when the network was wrapped.
            self._wrapped = self._ranks.wrap(self.model, self._device, self._training.sync_batch_norm)
            self.compile(is_compiled)

    def passes(self, rows: torch.Tensor, epoch: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and backward of one batch, piece by piece; leaves the gradients in the weights.

        Args:
            rows: int64 [n], row numbers of the whole batch, the same on every rank.
            epoch, step: counted from 1 and 0; all randomness follows from them.

        Returns:
            This rank's part of the batch's mean loss (float32 []) and of its right answers (int64 []), on the device.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self._device)
        hits = torch.zeros((), dtype=torch.int64, device=self._device)
        pieces = self._pieces(rows)
        for number, piece in enumerate(pieces):
            images, targets = self._ahead.take(piece, (epoch, step, number))
            self._randomness.seed_dropout(epoch, step, number)
            with self._exchange(number + 1 == len(pieces)):
                logits = self.logits(images)
                part = self._loss(logits, targets) / len(rows)
                # The ranks' gradients are averaged, but each loss is already divided by the size of the whole batch.
                self.scaler.scale(part * self._ranks.world).backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
            right = targets.argmax(1) if targets.ndim > 1 else targets
            hits += (logits.detach().argmax(1) == right).sum()
            if number + 1 < len(pieces):
                self._ahead.begin(pieces[number + 1], (epoch, step, number + 1))
        return loss, hits

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The sum over the images, in nats: float32 []."""
        smoothing = self._training.label_smoothing
        return F.cross_entropy(logits, targets, weight=self._class_weights, reduction="sum", label_smoothing=smoothing)

    def begin(self, rows: torch.Tensor, epoch: int, step: int) -> None:
        """On a GPU, prepare the images that `passes` will want next, beside the step that is queued there."""
        self._ahead.begin(self._pieces(rows)[0], (epoch, step, 0))

    def _pieces(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """This rank's share of a batch, in the pieces that go through the network one after the other."""
        return self._ranks.share(rows).tensor_split(self._training.accumulate)

    def _prepare(self, rows: torch.Tensor, place: Place) -> Batch:
        return self._augment_in(place[0])(*self._stored.take(rows), self._randomness.generator(*place))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [n, 3, H, W], normalised -> float32 [n, K], in the precision of training."""
        enabled = self._autocast is not None
        with torch.autocast(self._device.type, dtype=self._autocast or torch.bfloat16, enabled=enabled):
            logits = self._forward(images.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def update(self, loss: torch.Tensor, rate: float, step: int) -> None:
        """Move the weights along the gradients of `passes`, unless they or `loss` are not finite."""
        set_rate(self.optimizer, rate)
        finite = torch.isfinite(loss)
        if self.scaler.is_enabled():  # the scaler itself skips what is not finite, and tries a smaller scale
            if self._training.clip_norm:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self._weights, self._training.clip_norm)
        else:
            norm = nn.utils.get_total_norm([weight.grad for weight in self._weights if weight.grad is not None])
            finite &= torch.isfinite(norm)
            if self._training.clip_norm:
                nn.utils.clip_grads_with_norm_(self._weights, self._training.clip_norm, norm)
        self.bad_step = torch.minimum(self.bad_step, torch.where(finite, _SOUND, step))
        if not self.scaler.is_enabled():
            # What GradScaler sets for a fused optimiser: 1 makes the kernel leave weights and moments alone.
            self.optimizer.found_inf = (self.bad_step != _SOUND).float()  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()

    @contextlib.contextmanager
    def kept_buffers(self) -> Iterator[None]:
        """Around a step: until it is done, `buffers` holds batch norm's running means of before it."""
        if self.buffers:
            torch._foreach_copy_(self.buffers, self._buffers)
        self.in_step = True
        yield
        self.in_step = False

    def restore_buffers(self) -> None:
        """In a step that is half done: batch norm forgets what it has seen of it."""
        if self.buffers:
            torch._foreach_copy_(self._buffers, self.buffers)

    def buffers_before(self) -> dict[str, torch.Tensor]:
        """By the keys of the state dict: the buffers as they were before the step that is half done."""
        return dict(zip((name for name, _ in self.model.named_buffers()), self.buffers, strict=True))

    def _exchange(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients go to the other ranks with the batch's last piece only."""
        if isinstance(self._wrapped, DistributedDataParallel) and not last:
            return self._wrapped.no_sync()
        return contextlib.nullcontext()

    # --- what a checkpoint holds of the optimiser

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """Moments and step counters by "<number of the weight>.<name>", and the scaler's numbers."""
        state = {
            f"{number}.{name}": value
            for number, weight in enumerate(self._weights)
            for name, value in self.optimizer.state[weight].items()
            if value is not None  # SGD's momentum of what is frozen
        }
        if self.scaler.is_enabled():
            numbers = self.scaler.state_dict()
            state["scaler"] = torch.tensor([numbers["scale"], numbers["_growth_tracker"]], dtype=torch.float64)
        return state

    def load_optimizer_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from `optimizer_state`.

        Those of another optimiser are left: then it starts without.  They take the memory layout of their weights: the
        fused kernel walks through both side by side.
        """
        numbers = state.get("scaler")
        if numbers is not None and self.scaler.is_enabled():
            known = self.scaler.state_dict()
            self.scaler.load_state_dict({**known, "scale": numbers[0].item(), "_growth_tracker": int(numbers[1])})
        moments = STATE[self._training.optimizer]
        for number, weight in enumerate(self._weights):
            for name in moments:
                value = state.get(f"{number}.{name}")
                if value is not None:
                    empty = torch.empty_like(weight, requires_grad=False) if value.ndim == weight.ndim else None
                    self.optimizer.state[weight][name] = (
                        value.to(weight.device, copy=True) if name == "step" or empty is None else empty.copy_(value)
                    )
