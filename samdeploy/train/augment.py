"""From a batch of uint8 images to what the network is trained on: augmentation and normalisation, on the device.

All operations are torchvision's (`torchvision.transforms.v2`).  One call of such an operation draws *one* set of
parameters, whatever it is given: a whole batch would be turned by the same angle.  So crop and policy are called for
one group of images after the other.  On the CPU a group is one image: the call costs about as much time per image
as it costs for itself.  On a GPU it costs a handful of kernel launches however many images there are, so that single
images would starve the GPU: there a group is 8 images of the batch, which is shuffled.  Mirroring is drawn for
each image on either device.

torchvision draws from PyTorch's global generator.  It is seeded from the caller's generator for the length of a call
and then put back, so that a resumed training sees the same images and dropout never notices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn
from torchvision.transforms import v2

from samdeploy.models.graph import Normalize
from samdeploy.train.recipe.recipe import AugmentSection, Recipe

# Images that share one draw of crop and policy.
GROUP = {"cpu": 1, "cuda": 8}
_RATIO = (3 / 4, 4 / 3)


class Augmentation:
    """Callable; keeps no state between calls.

    Attributes:
        size: (height, width) of the images that come out, in pixels.
    """

    def __init__(
        self, section: AugmentSection, size: tuple[int, int], normalize: nn.Module, num_classes: int, group: int
    ) -> None:
        """
        Args:
            section: what to do.
            size: (height, width) of the images to give.
            normalize: uint8 [n, H, W, 3] -> float32 [n, 3, H, W], normalised.
            num_classes: for mixed targets.
            group: images that share one draw.
        """
        self.size = size
        self._section, self._normalize, self._group = section, normalize, group
        self._geometry = _geometry(section, size)
        mixes = [v2.MixUp(alpha=section.mixup, num_classes=num_classes)] if section.mixup else []
        mixes += [v2.CutMix(alpha=section.cutmix, num_classes=num_classes)] if section.cutmix else []
        self._mix = (v2.RandomChoice(mixes) if len(mixes) > 1 else mixes[0]) if mixes else None

    @property
    def is_random(self) -> bool:
        """Whether anything is drawn."""
        return self._section.flip or bool(self._geometry) or self._mix is not None

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            images: uint8 [n, H, W, 3] RGB, on the device.
            labels: int64 [n], on the device.
            generator: gives one seed.  One on a GPU must have been seeded for this call: reading a number from the GPU
                would wait for it, so its own seed is taken.

        Returns:
            float32 [n, 3, h, w], normalised, and targets: int64 [n], or float32 [n, K] where images were mixed.
        """
        if self.is_random:
            with _drawing(generator):
                return self._augment(images, labels)
        return self._finish(self.augmented(images), labels)

    def augmented(self, images: torch.Tensor) -> torch.Tensor:
        """The images alone before normalisation, drawn from the global generator: uint8 [n, h, w, 3]."""
        if self._section.flip:
            images = _flipped(images)
        if self._geometry or images.shape[1:3] != self.size:
            transform = v2.Compose([*self._geometry]) if self._geometry else v2.Resize(self.size, antialias=True)
            planes = images.permute(0, 3, 1, 2)
            parts = [transform(part) for part in torch.split(planes, self._group)]
            images = torch.cat(parts).permute(0, 2, 3, 1)
        return images

    def _augment(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._finish(self.augmented(images), labels)

    def _finish(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        normal: torch.Tensor = self._normalize(images)
        if self._mix is None:
            return normal, labels
        mixed, targets = self._mix(normal, labels)
        return mixed, targets


def augmentations(recipe: Recipe, num_classes: int, device: torch.device) -> Callable[[int], Augmentation]:
    """From the number of an epoch, from 1, to its augmentation."""
    first = make_augmentation(recipe, num_classes, device)
    whole = replace(recipe, augment=replace(recipe.augment, train_size=0))
    last = make_augmentation(whole, num_classes, device)
    begins = recipe.training.epochs - recipe.augment.whole_epochs + 1
    return lambda epoch: first if epoch < begins else last


def make_augmentation(recipe: Recipe, num_classes: int, device: torch.device) -> Augmentation:
    """The augmentation of a recipe's first epoch; without one it normalises, and nothing else."""
    section, image = recipe.augment, recipe.image
    size = (section.train_size, section.train_size) if section.train_size else (image.height, image.width)
    normalize = Normalize(image.preprocessing()).to(device)
    return Augmentation(section, size, normalize, num_classes, section.group or GROUP.get(device.type, 1))


def _geometry(section: AugmentSection, size: tuple[int, int]) -> list[v2.Transform]:
    """What is drawn for a group of images."""
    steps: list[v2.Transform] = []
    if section.crop_scale < 1:
        steps.append(v2.RandomResizedCrop(size, scale=(section.crop_scale, 1.0), ratio=_RATIO, antialias=True))
    elif section.crop_padding:
        # Not resized before: what is cut is as large and as sharp as it will be in whole images.
        steps.append(v2.RandomCrop(size, padding=section.crop_padding))
    elif section.policy != "none":
        steps.append(v2.Resize(size, antialias=True))  # does nothing where the size is right
    if section.policy == "trivial":
        steps.append(v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR))
    elif section.policy == "rand":
        steps.append(v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR))
    return steps


def _flipped(images: torch.Tensor) -> torch.Tensor:
    """Every image mirrored with a probability of one half; uint8 [n, H, W, 3]."""
    chosen = torch.rand(len(images)) < 0.5
    # A choice between two tensors and not an index: the number of rows of an index would be waited for.
    mirrored = v2.functional.horizontal_flip(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return torch.where(chosen.to(images.device, non_blocking=True)[:, None, None, None], mirrored, images)


@contextmanager
def _drawing(generator: torch.Generator) -> Iterator[None]:
    """PyTorch's global CPU generator, seeded for the block and put back after it; the GPUs' are not touched."""
    on_cpu = generator.device.type == "cpu"
    seed = int(torch.randint(2**62, (), generator=generator)) if on_cpu else generator.initial_seed()
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
