"""What an examination found, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Runtime:
    """One backend on this machine.

    Attributes:
        name: a key of `samdeploy.backends.BACKENDS`.
        packages: installed package -> version; empty where none is.
        reason: why it cannot run here, with the cure; "" where it can.
        is_broken: installed, and unusable for another reason than a missing GPU.
    """

    name: str
    packages: dict[str, str]
    reason: str
    is_broken: bool


@dataclass(frozen=True, slots=True)
class Extra:
    """One of the package's extras.

    Attributes:
        name: as in `pip install 'samdeploy[name]'`.
        missing: requirements of which nothing is installed.
        outdated: requirements that another version is installed of, with that version.
    """

    name: str
    missing: tuple[str, ...]
    outdated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine and the installation.

    Attributes:
        processor: name, cores and system.
        cores: that this process may use.
        memory_gib: of the machine, or the limit of its control group; None where the system does not say.
        gpu: name, compute capability and CUDA version of device 0; "" where there is none.
        no_gpu: why there is none; "" where there is one.
        samdeploy, python: versions.
        cache: folder of what may be lost.
        runtimes, extras: each with its state; extras are empty where samdeploy is not installed as a package.
        problems: what is wrong, each with its cure.
    """

    processor: str
    cores: int
    memory_gib: float | None
    gpu: str
    no_gpu: str
    samdeploy: str
    python: str
    cache: str
    runtimes: tuple[Runtime, ...]
    extras: tuple[Extra, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineState:
    """One engine of a bundle.

    Attributes:
        backend, precision: which.
        device: where it ran; "" if it did not.
        reason: why it cannot be opened here; "" if it answered its golden images as its model did.
        open_s: seconds of opening, golden images included; None if it was not opened.
    """

    backend: str
    precision: str
    device: str
    reason: str
    open_s: float | None


@dataclass(frozen=True, slots=True)
class BundleState:
    """A bundle.

    Attributes:
        path: its folder.
        summary: network, classes and input, in words; "" where the manifest cannot be read.
        files, size: that the manifest names; bytes together.
        damaged: files that are not as the manifest states, in words.
        strangers: files in the folder that nothing names; no runtime reads them.
        engines: each with its state; empty where a file is damaged.
        evaluation: what eval.json says, in words; "" where the bundle was not evaluated.
        problems: what is wrong, each with its cure.
    """

    path: str
    summary: str
    files: int
    size: int
    damaged: tuple[str, ...]
    strangers: tuple[str, ...]
    engines: tuple[EngineState, ...]
    evaluation: str
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The machine, and the bundle where there is one."""

    machine: Machine
    bundle: BundleState | None

    @property
    def problems(self) -> tuple[str, ...]:
        """All that is wrong, each with its cure."""
        return self.machine.problems + (self.bundle.problems if self.bundle else ())

    def to_json(self) -> dict[str, Any]:
        """All fields, and the problems together."""
        return {
            "machine": dataclasses.asdict(self.machine),
            "bundle": dataclasses.asdict(self.bundle) if self.bundle else None,
            "problems": list(self.problems),
        }
