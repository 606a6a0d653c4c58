"""What only a GPU can show: mixed precision, images that do not fit, full memory, and batches prepared ahead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from samdeploy.backends import open_session
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, TrainingError
from samdeploy.runs.record import open_run
from samdeploy.train.augment import make_augmentation
from samdeploy.train.loop import batches as images_file
from samdeploy.train.loop.ahead import Ahead, Batch, Place
from samdeploy.train.loop.batches import StoredImages
from samdeploy.train.loop.seeds import StepRandomness
from samdeploy.train.loop.train import train
from samdeploy.train.prepare import open_recipe_data, prepare_data
from samdeploy.train.recipe.recipe import Recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here"),
]
MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_trains_in_every_precision(recipe: MakeRecipe, tmp_path: Path, precision: str) -> None:
    run = train(recipe("device=auto", f"precision={precision}", "clip_norm=1", "epochs=8"), runs_root=tmp_path)
    record = open_run(run)
    assert record.status == "complete"
    assert record.provenance["device"] == torch.cuda.get_device_name()
    if precision != "auto":
        assert record.provenance["precision"] == precision
    assert record.best_val_top1 > 50


def test_the_first_bad_step_is_named_though_it_is_looked_for_later(recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="at epoch 1, step 2 of 3"):
        train(recipe("device=cuda", "precision=fp32", "learning_rate=1e30"), runs_root=tmp_path)


def test_images_that_do_not_fit_give_the_same_batches(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe()
    split = prepare_data(made, open_recipe_data(made)).splits["train"]
    device = torch.device("cuda", 0)
    resident = StoredImages(*split, device)
    monkeypatch.setattr(images_file, "_SHARE", 0.0)
    copied = StoredImages(*split, device)
    order = torch.randperm(22)
    for one, other in zip(resident.batches(7, order), copied.batches(7, order), strict=True):
        assert one.device.type == "cuda"
        assert other.device.type == "cpu"
        for a, b in zip(resident.take(one), copied.take(other), strict=True):
            assert a.device == b.device == device
            assert torch.equal(a, b)


DEVICE = torch.device("cuda", 0)


@pytest.fixture
def preparing(recipe: MakeRecipe) -> Callable[[torch.Tensor, Place], Batch]:
    """With every augmentation there is, those of torchvision that wait for the GPU among them."""
    made = recipe("augment.flip=true", "augment.crop_scale=0.3", "augment.policy=trivial", "augment.cutmix=1")
    examples = StoredImages(*prepare_data(made, open_recipe_data(made)).splits["train"], DEVICE)
    augment, randomness = make_augmentation(made, 2, DEVICE), StepRandomness(0, 0, DEVICE)
    return lambda rows, place: augment(*examples.take(rows), randomness.generator(*place))


def test_what_was_prepared_ahead_is_the_batch(preparing: Callable[[torch.Tensor, Place], Batch]) -> None:
    ahead, rows = Ahead(preparing, DEVICE), torch.randperm(22, device=DEVICE).split(7)
    stream = torch.cuda.Stream(DEVICE)
    with torch.cuda.stream(stream):
        for step in range(200):
            place = (1, step, 0)
            images, targets = ahead.take(rows[step % 3], place)
            ahead.begin(rows[(step + 1) % 3], (1, step + 1, 0))
            expected = preparing(rows[step % 3], place)
            assert torch.equal(images, expected[0])
            assert torch.equal(targets, expected[1])
            del images, targets, expected  # their memory is given to what comes next
    first = ahead.take(rows[0], (2, 0, 0))  # not what was begun: another place
    assert torch.equal(first[0], preparing(rows[0], (2, 0, 0))[0])


def test_preparing_ahead_does_not_wait_for_the_step(preparing: Callable[[torch.Tensor, Place], Batch]) -> None:
    ahead, rows = Ahead(preparing, DEVICE), torch.arange(14, device=DEVICE).split(7)
    for step in range(3):  # kernels are loaded
        ahead.take(rows[0], (1, step, 0))
        ahead.begin(rows[1], (1, step, 1))
    torch.cuda.synchronize()
    ahead.take(rows[0], (1, 3, 0))
    torch.cuda._sleep(4_000_000_000)  # a step of about two seconds
    ahead.begin(rows[1], (1, 3, 1))
    busy = not torch.cuda.current_stream().query()
    torch.cuda.synchronize()
    assert busy


def test_a_full_gpu_is_an_error(recipe: MakeRecipe, digits_bundle: Bundle, tmp_path: Path) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.get_per_process_memory_fraction(0)
    torch.cuda.set_per_process_memory_fraction(1e-4)  # megabytes, and the weights are 47
    try:
        with pytest.raises(TrainingError, match=r"memory is full before the first batch \(CUDA out of memory"):
            train(recipe("device=cuda"), runs_root=tmp_path)
        with pytest.raises(BackendUnavailable, match=r"pytorch: the GPU's memory is full \(.*use device cpu"):
            open_session(digits_bundle, "pytorch", device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(before)
