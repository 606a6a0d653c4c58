"""Several processes, one training: `torchrun --nproc-per-node N -m samdeploy train ...`.

Every process (rank) works on its share of each batch; gradients are averaged by DistributedDataParallel.  Rank 0 alone
reads recipes and checkpoints, writes and prints.  Without torchrun there is one rank, and nothing here costs anything.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from samdeploy.errors import RecipeError, SamdeployError, TrainingError, first_line

P = ParamSpec("P")
T = TypeVar("T")

# How long a rank waits for the others in one collective: the slowest thing that they do apart is reading data.
TIMEOUT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all that train together.

    Attributes:
        rank: 0 to world - 1 over all machines.
        world: how many there are.
        local_rank: counted on this machine; the number of its GPU.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    def command(self) -> str:
        """How somebody starts as many processes again."""
        if self.world == 1:
            return "samdeploy"
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.world))
        machines = f"--nnodes {self.world // here} " if here < self.world else ""
        return f"torchrun {machines}--nproc-per-node {here} -m samdeploy"

    def share(self, rows: torch.Tensor) -> torch.Tensor:
        """This rank's part of `rows` [n, ...]; the parts of all ranks are disjoint and together the whole."""
        return rows if self.world == 1 else rows[self.rank :: self.world]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def alone(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What `function` gives on rank 0, there; None on the other ranks, which wait for it.

        An error of samdeploy's own is raised on rank 0, which reports it; the other ranks end quietly.
        """
        if self.world == 1:
            return function(*args, **kwargs)
        result: T | None = None
        error: SamdeployError | None = None
        if self.main:
            try:
                result = function(*args, **kwargs)
            except SamdeployError as caught:
                error = caught
        exit_code = self.tell(error.exit_code if error else None)
        if error is not None:
            raise error
        if exit_code is not None:
            raise SystemExit(exit_code)
        return result

    def tell(self, value: T) -> T:
        """The `value` of rank 0, on every rank."""
        values = [value]
        if self.world > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def first(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` gives on rank 0, on every rank; errors as in `alone`."""
        return self.tell(self.alone(function, *args, **kwargs))  # type: ignore[return-value]

    def all(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` gives on this rank, provided that it succeeds on every rank.

        Raises:
            SamdeployError: on rank 0, the first rank's error; the other ranks end quietly.
        """
        if self.world == 1:
            return function(*args, **kwargs)
        result, problem = None, None
        try:
            result = function(*args, **kwargs)
        except SamdeployError as error:
            problem = (type(error), str(error))
        problems: list[tuple[type[SamdeployError], str] | None] = [None] * self.world
        dist.all_gather_object(problems, problem)
        for rank, found in enumerate(problems):
            if found is not None:
                kind, text = found
                if not self.main:
                    raise SystemExit(kind.exit_code)
                raise kind(text if rank == 0 else f"rank {rank}: {text}")
        return result  # type: ignore[return-value]

    def wrap(self, model: nn.Module, device: torch.device, sync_batch_norm: bool) -> nn.Module:
        """`model` with its gradients averaged over the ranks.  Weights and buffers become those of rank 0."""
        if self.world == 1:
            return model
        if sync_batch_norm:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(
            model, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
        )

    def equalise(self, tensors: Iterable[torch.Tensor]) -> None:
        """`tensors` become those of rank 0, in place: batch norm's running means, for example."""
        if self.world > 1:
            for tensor in tensors:
                whole = tensor.contiguous()
                dist.broadcast(whole, src=0)
                tensor.copy_(whole)


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that torchrun started, connected; one rank where there is no torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    ranks = Ranks(int(os.environ["RANK"]), world, int(os.environ.get("LOCAL_RANK", "0")))
    if dist.is_initialized():  # by the command line, before it read the recipe
        yield ranks
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"rank {ranks.rank} of {world}: cannot reach the others ({first_line(error)})") from None
    try:
        # The other ranks' notes and progress would be rank 0's over again; their errors are reported apart.
        with contextlib.nullcontext() if ranks.main else contextlib.redirect_stderr(io.StringIO()):
            yield ranks
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def check_shares(batch_size: int, images: int, world: int, accumulate: int) -> None:
    """Refuse a batch that the set cannot fill, or whose pieces batch norm cannot work with.

    Raises:
        RecipeError: says which size would do.
    """
    if batch_size > images:
        raise RecipeError(
            f"training.batch_size: {batch_size} found, but there are {images:,} training images; "
            f"--set training.batch_size={images}"
        )
    least = smallest_batch(world, accumulate)
    if batch_size < least:
        raise RecipeError(
            f"training.batch_size: {batch_size} found, at least {least} expected: {world} process(es) times "
            f"{accumulate} piece(s) (training.accumulate) times the 2 images that batch norm needs"
        )


def smallest_batch(world: int, accumulate: int) -> int:
    """Batch norm over a single image at 1x1 positions has no variance, and PyTorch refuses it."""
    return 2 * world * accumulate


def check_sync_batch_norm(wanted: bool, device: torch.device) -> None:
    """Refuse synchronised batch norm where PyTorch has no kernel for it.

    Raises:
        RecipeError: the device is the CPU.
    """
    if wanted and device.type != "cuda":
        raise RecipeError(
            "training.sync_batch_norm: true found, but PyTorch's SyncBatchNorm has kernels for GPUs only, and the "
            "device is the CPU; use --set training.sync_batch_norm=false, and a batch with enough images per process"
        )


def is_lost_connection(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone, and not for a reason of our own."""
    words = ("gloo", "nccl", "connection", "peer", "socket")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )
