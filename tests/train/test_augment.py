"""Augmentation: every image its own draw on the CPU, all of it from one generator, nothing else disturbed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from samdeploy.errors import RecipeError
from samdeploy.models.graph import Normalize
from samdeploy.train.augment import GROUP, Augmentation, augmentations, make_augmentation
from samdeploy.train.recipe.recipe import AugmentSection, Recipe

CPU = torch.device("cpu")
CLASSES = 5

MakeRecipe = Callable[..., Recipe]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 12, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    draw = seeded(1)
    images = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=draw)
    return images, torch.randint(0, CLASSES, (count,), generator=draw)


def plain(size: int = 32, group: int = 1, **values: object) -> Augmentation:
    """Without normalisation, so that pixels can be compared."""

    def as_it_is(images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2).float()

    section = replace(AugmentSection(flip=False, crop_scale=1.0, policy="none"), **values)  # type: ignore[arg-type]
    return Augmentation(section, (size, size), as_it_is, CLASSES, group)  # type: ignore[arg-type]


EVERYTHING = {"flip": True, "crop_scale": 0.3, "policy": "trivial", "mixup": 0.4, "cutmix": 1.0}


def test_no_augmentation_is_normalisation_and_draws_nothing(recipe: MakeRecipe) -> None:
    images, labels = batch()
    generator = seeded(0)
    before = generator.get_state()
    augmentation = make_augmentation(recipe(), CLASSES, CPU)
    found, targets = augmentation(images, labels, generator)
    assert not augmentation.is_random
    assert torch.equal(found, Normalize(recipe().image.preprocessing())(images))
    assert torch.equal(targets, labels)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    "values",
    [
        {"flip": True},
        {"crop_padding": 4},
        {"crop_scale": 0.3},
        {"policy": "trivial"},
        {"policy": "rand"},
        {"mixup": 0.4},
        {"cutmix": 1.0},
        EVERYTHING,
    ],
    ids=str,
)
def test_the_same_generator_gives_the_same_batch_and_another_seed_another(values: dict[str, object]) -> None:
    images, labels = batch()
    augmentation = plain(**values)
    first, targets = augmentation(images, labels, seeded(7))
    torch.manual_seed(99)  # the global generator has no say
    again, same_targets = augmentation(images, labels, seeded(7))
    assert torch.equal(first, again)
    assert torch.equal(targets, same_targets)
    assert not torch.equal(first, augmentation(images, labels, seeded(8))[0])
    assert first.shape == (12, 3, 32, 32)
    assert first.dtype == torch.float32


def test_the_global_generator_is_left_as_it_was() -> None:
    images, labels = batch()
    before = torch.get_rng_state()
    plain(**EVERYTHING)(images, labels, seeded(7))
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ZeroDivisionError):  # torchvision's, for images without rows
        plain(crop_scale=0.3)(images[:, :0], labels, seeded(7))
    assert torch.equal(torch.get_rng_state(), before)


def test_calls_take_turns_with_one_generator() -> None:
    """What a resumed training needs: the state of the generator is all that there is."""
    images, labels = batch()
    augmentation, generator = plain(**EVERYTHING), seeded(3)
    augmentation(images, labels, generator)
    state = generator.get_state()
    second = augmentation(images, labels, generator)[0]
    later = torch.Generator()
    later.set_state(state)
    assert torch.equal(augmentation(images, labels, later)[0], second)


def test_every_image_has_its_own_draw_on_the_cpu() -> None:
    """Twelve times the same image: with one draw for the batch they would stay the same."""
    images = batch(1)[0].expand(12, -1, -1, -1)
    labels = torch.zeros(12, dtype=torch.int64)
    for values in ({"crop_scale": 0.3}, {"crop_padding": 4}, {"policy": "trivial"}):
        found = plain(**values)(images, labels, seeded(0))[0]
        assert len({image.numpy().tobytes() for image in found}) > 6, values
    together = plain(group=12, crop_scale=0.3)(images, labels, seeded(0))[0]
    assert len({image.numpy().tobytes() for image in together}) == 1


def test_half_of_the_images_are_mirrored_whatever_the_group() -> None:
    images = batch(1)[0].expand(200, -1, -1, -1)
    labels = torch.zeros(200, dtype=torch.int64)
    original = images[0].permute(2, 0, 1).float()
    found = plain(group=100, flip=True)(images, labels, seeded(0))[0]
    as_it_was = sum(torch.equal(image, original) for image in found)
    mirrored = sum(torch.equal(image, original.flip(2)) for image in found)
    assert as_it_was + mirrored == 200
    assert 70 < mirrored < 130  # four standard deviations of a fair coin


def test_a_crop_with_padding_moves_the_image() -> None:
    images, labels = batch(40)
    found = plain(crop_padding=4)(images, labels, seeded(0))[0]
    shifts = set()
    for image, original in zip(found, images.permute(0, 3, 1, 2).float(), strict=True):
        padded = torch.nn.functional.pad(original, (4, 4, 4, 4))
        fits = [(y, x) for y in range(9) for x in range(9) if torch.equal(padded[:, y : y + 32, x : x + 32], image)]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert len(shifts) > 20


def test_a_smaller_training_image_is_cut_and_not_resized() -> None:
    images, labels = batch(20)
    for image, original in zip(
        plain(size=24, crop_padding=2)(images, labels, seeded(0))[0],
        torch.nn.functional.pad(images.permute(0, 3, 1, 2).float(), (2, 2, 2, 2)),
        strict=True,
    ):
        windows = original.unfold(1, 24, 1).unfold(2, 24, 1)
        assert (windows == image[:, None, None]).all(dim=(0, 3, 4)).any()


@pytest.mark.parametrize("values", [{"crop_scale": 0.3}, {"crop_padding": 2}, {"policy": "trivial"}, {}], ids=str)
def test_training_images_may_be_of_another_size(values: dict[str, object]) -> None:
    images, labels = batch(6, side=48)
    found, _ = plain(size=24, **values)(images, labels, seeded(0))
    assert found.shape == (6, 3, 24, 24)


def test_mixed_targets_are_shares_of_classes() -> None:
    images, labels = batch()
    for values in ({"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}):
        _, targets = plain(**values)(images, labels, seeded(2))
        assert targets.shape == (12, CLASSES)
        assert torch.allclose(targets.sum(1), torch.ones(12))
        assert (targets[torch.arange(12), labels] > 0).all()


def test_the_last_epochs_see_whole_images(recipe: MakeRecipe) -> None:
    made = recipe("training.epochs=5", "augment.train_size=16", "augment.crop_padding=2", "augment.whole_epochs=2")
    whole = (made.image.height, made.image.width)
    augment_in = augmentations(made, CLASSES, CPU)
    images, labels = batch(side=whole[0])
    shapes = [tuple(augment_in(epoch)(images, labels, seeded(0))[0].shape[2:]) for epoch in range(1, 6)]
    assert shapes == [(16, 16)] * 3 + [whole] * 2


def test_on_a_gpu_images_share_draws(recipe: MakeRecipe) -> None:
    assert GROUP["cpu"] == 1 < GROUP["cuda"]
    images = batch(1)[0].expand(12, -1, -1, -1)
    section = recipe("augment.policy=trivial", "augment.group=6")
    found = make_augmentation(section, CLASSES, CPU)(images, torch.zeros(12, dtype=torch.int64), seeded(0))[0]
    assert len({image.numpy().tobytes() for image in found}) <= 2


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ("augment.crop_padding=4", "augment.crop_scale=0.5"),
            "augment: crop_padding and crop_scale found, one of the two ways to crop expected",
        ),
        (
            ("augment.oversize=1.5",),
            "augment.oversize: 1.5 found, 1 expected where crop_scale = 1 cuts nothing off",
        ),
        (("augment.whole_epochs=2",), "augment.whole_epochs: 2 found, 0 expected where train_size = 0"),
        (("augment.policy=auto",), "augment.policy: 'auto' found, one of none, trivial, rand expected"),
        (("augment.crop_scale=0",), "augment.crop_scale: 0 found, above 0 expected"),
        (("augment.flips=true",), "unknown key in [augment] 'flips'; did you mean 'flip'?"),
    ],
)
def test_what_a_recipe_may_not_say(overrides: tuple[str, ...], text: str, recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(*overrides)
    assert text in str(caught.value)


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_and_a_seed_gives_the_same_batch(recipe: MakeRecipe) -> None:
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    device = torch.device("cuda")
    images, labels = (tensor.to(device) for tensor in batch(32))
    # Without a policy: torchvision's rotations and shears copy their matrix to the GPU and wait (see loop/ahead.py).
    made = recipe("augment.flip=true", "augment.crop_scale=0.3", "augment.cutmix=1")
    augmentation = make_augmentation(made, CLASSES, device)
    generator = torch.Generator(device)

    def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        return augmentation(images, labels, generator.manual_seed(seed))

    draw(0)
    before = torch.cuda.get_rng_state(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        first, again, other = draw(1), draw(1), draw(2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.cuda.get_rng_state(device), before)
