"""Networks of one's own as a `ModelFamily`: "python:package.module:function", where the function builds the network.

A manifest must not make samdeploy call what it names: a function is called only where this process allowed it, or the
environment variable SAMDEPLOY_FACTORY names it.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from samdeploy.bundle.spec import OptionValue
from samdeploy.errors import InputError, first_line
from samdeploy.models.family import ModelFamily
from samdeploy.models.torch_family import TorchFamily

VARIABLE = "SAMDEPLOY_FACTORY"
_NAME = re.compile(r"python:[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
_allowed: set[str] = set()


class PythonFamily(TorchFamily):
    """The functions that may be called are its architectures."""

    prefix = "python"

    def architectures(self) -> Sequence[str]:
        named = (name.strip() for name in os.environ.get(VARIABLE, "").split(","))
        return tuple(sorted(_allowed | {f"{self.prefix}:{name}" for name in named if name}))

    def knows(self, arch: str) -> bool:
        return _NAME.fullmatch(arch) is not None

    def build(self, arch: str, num_classes: int, options: Mapping[str, OptionValue]) -> nn.Module:
        """What the function gives for `num_classes=...`.

        Raises:
            InputError: it is not allowed, cannot be imported, or fails.
        """
        name = arch.removeprefix(f"{self.prefix}:")
        if arch not in self.architectures():
            raise InputError(
                f"{arch}: a function of your own builds this network, and is called only when you allow it: "
                f"export {VARIABLE}={name}"
            )
        try:
            model = _function(name)(num_classes=num_classes)
        except ModuleNotFoundError as error:
            raise InputError(f"{arch}: {error}; put the folder of its package into PYTHONPATH") from None
        except (Exception, SystemExit) as error:  # the user's code
            raise InputError(f"{arch}: {type(error).__name__}: {first_line(error)}") from error
        if not isinstance(model, nn.Module):
            raise InputError(f"{arch}: gave {type(model).__name__}, a torch.nn.Module expected")
        for tensor in (*model.parameters(), *model.buffers()):
            if 0 in tensor.stride():  # expanded: no weights can be copied into memory that several numbers share
                tensor.data = tensor.data.clone()
        return model


def allow_factory(factory: Callable[..., nn.Module]) -> str:
    """Let samdeploy call `factory` in this process.

    Returns:
        The architecture that it builds, "python:package.module:function".

    Raises:
        InputError: other processes could not import it.
    """
    module, name = (str(getattr(factory, key, type(factory).__name__)) for key in ("__module__", "__qualname__"))
    arch = f"{PythonFamily.prefix}:{module}:{name}"
    if module == "__main__" or not _NAME.fullmatch(arch) or not _is_found(factory, f"{module}:{name}"):
        raise InputError(f"{module}:{name}: a function at the top of a module that can be imported expected")
    _allowed.add(arch)
    return arch


def _is_found(factory: object, name: str) -> bool:
    try:
        return _function(name) is factory
    except (ImportError, AttributeError):
        return False


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


FAMILY: ModelFamily = PythonFamily()
