"""`samdeploy.import_model`: a network of one's own, from Python."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from samdeploy.bundle.spec import RESIZES, Preprocessing
from samdeploy.errors import InputError, WeightsError, first_line
from samdeploy.importing.importing import ImportOptions, import_source
from samdeploy.importing.source import Source
from samdeploy.models import build_model
from samdeploy.models.preprocessing import Given
from samdeploy.models.python_factory import VARIABLE, allow_factory
from samdeploy.models.weights import load_state

# Of the answers' range: the same sums in float32.
_SAME = 1e-4


def import_model(
    module: nn.Module,
    factory: Callable[..., nn.Module],
    preprocessing: Preprocessing,
    *,
    classes: Sequence[str] | None = None,
    data: str | Path | None = None,
    license: str | None = None,
    runs: str | Path = "runs",
) -> Path:
    """Write a run directory, as `samdeploy import` does, of a network that no family knows.

    Args:
        module: trained, on the CPU: float32 [N, 3, H, W], normalised -> logits [N, K]; left in eval mode.
        factory: a function of an importable module; ``factory(num_classes=K)`` builds the same network untrained.
            Other processes call it only with SAMDEPLOY_FACTORY=package.module:function in their environment.
        preprocessing: of its images.
        classes: names in the order of the logits; None: those of the folders in `data`.
        data: folder of labelled images; None: the network is exported in FP32 alone.
        license: of the weights.
        runs: folder of all runs.

    Returns:
        The run directory, for `samdeploy export`.

    Raises:
        InputError: the factory builds another network, or the network is no classifier of such images.
        DatasetError: images are missing or damaged.
    """
    _check_arguments(module, preprocessing, classes)
    arch, sizes = allow_factory(factory), (preprocessing.height, preprocessing.width)
    example = _example(preprocessing)
    try:
        with torch.inference_mode():
            answers = module.eval()(example)
    except Exception as error:  # the user's code
        raise InputError(f"{arch}: does not take images of {sizes[0]}x{sizes[1]} ({first_line(error)})") from error
    if not isinstance(answers, torch.Tensor) or answers.ndim != 2:
        raise InputError(f"{arch}: one tensor of logits [N, K] expected")
    if not answers.isfinite().all():
        raise InputError(f"{arch}: its answers are not finite; these weights cannot be used")
    _check_rebuilt(arch, module, example, answers)
    filter_ = next(name for name, resize in RESIZES.items() if resize == preprocessing.resize)
    given = Given(
        None, *sizes, preprocessing.resize_short, preprocessing.fit, filter_, preprocessing.crop,
        preprocessing.mean, preprocessing.std,
    )  # fmt: skip
    name = factory.__qualname__
    source = Source(
        arch, name, f"a module built by {arch}", module.state_dict(), answers.shape[1],
        tuple(classes) if classes is not None else None,
    )  # fmt: skip
    options = ImportOptions(name, data=None if data is None else Path(data), given=given, license=license)
    run = import_source(source, options, runs_root=Path(runs))
    print(f"next: {_where(factory)}{VARIABLE}={arch.removeprefix('python:')} samdeploy export {run}", file=sys.stderr)
    return run


def _where(factory: Callable[..., nn.Module]) -> str:
    """What tells Python where the function's package is, unless it is installed."""
    file = getattr(sys.modules.get(factory.__module__), "__file__", None)
    if file is None or "site-packages" in file:
        return ""
    path = Path(file).parent if Path(file).name == "__init__.py" else Path(file)
    folder = path.parents[factory.__module__.count(".")]
    return f"PYTHONPATH={shlex.quote(os.path.relpath(folder))} "


def _check_arguments(module: object, preprocessing: object, classes: Sequence[str] | None) -> None:
    """Refuse what is of another type than `import_model` takes.

    Raises:
        InputError: with what was found.
    """
    for name, value, wanted in (("module", module, nn.Module), ("preprocessing", preprocessing, Preprocessing)):
        if not isinstance(value, wanted):
            raise InputError(f"{name}: {type(value).__name__} found, a {wanted.__name__} expected")
    assert isinstance(module, nn.Module)
    for tensor in (*module.parameters(), *module.buffers()):
        if (tensor.is_floating_point() and tensor.dtype != torch.float32) or tensor.device.type != "cpu":
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(
                f"module: {kind} on {tensor.device} found, float32 on the CPU expected: module.float().cpu()"
            )
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes or ()):
        raise InputError(f"classes: {classes!r:.40} found, a list of names expected, such as ['cat', 'dog']")


def _example(size: Preprocessing) -> torch.Tensor:
    """float32 [9, 3, H, W]: images of noise, of the darkest and brightest pixels, black and white; and plain noise."""
    generator, shape = torch.Generator().manual_seed(0), (2, 3, size.height, size.width)
    noise, normal = torch.rand(shape, generator=generator), torch.randn(shape, generator=generator)
    images = torch.cat([noise, noise[:1].round(), torch.zeros(1, *shape[1:]), torch.ones(1, *shape[1:])])
    mean, std = (torch.tensor(values)[:, None, None] for values in (size.mean, size.std))
    return torch.cat([(images - mean) / std, noise, normal])


def _check_rebuilt(arch: str, module: nn.Module, example: torch.Tensor, answers: torch.Tensor) -> None:
    """Whether the factory's network with these weights is the same function.

    Raises:
        InputError: it is not.
    """
    rebuilt = build_model(arch, answers.shape[1]).eval()
    try:
        load_state(rebuilt, module.state_dict(), arch)
    except WeightsError as error:
        raise InputError(f"the factory builds another network: {error}") from None
    with torch.inference_mode():
        off = float((rebuilt(example) - answers).abs().max() / (answers.max() - answers.min()).clamp(min=1e-12))
    if not off <= _SAME:
        raise InputError(f"{arch}: the network it builds answers differently with the same weights")
