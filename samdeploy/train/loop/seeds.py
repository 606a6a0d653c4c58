"""Where chance comes from: every step has a seed of its own, so that going on needs no generator's state.

Dropout and augmentation of a step depend on the run's seed, the epoch, the step, the piece and the rank, and on nothing
that happened before.  A training that goes on from a checkpoint draws what the undisturbed one would have drawn.
"""

from __future__ import annotations

import hashlib

import torch


def step_seed(seed: int, epoch: int, step: int, piece: int = 0, rank: int = 0) -> int:
    """A number of 63 bits; neighbouring steps get unrelated ones."""
    digest = hashlib.blake2b(f"{seed} {epoch} {step} {piece} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class StepRandomness:
    """The generators that one step draws from."""

    def __init__(self, seed: int, rank: int, device: torch.device) -> None:
        self._seed, self._rank = seed, rank
        self._generator = torch.Generator(device)

    def seed_dropout(self, epoch: int, step: int, piece: int) -> None:
        """Seed torch's global generators, which dropout draws from."""
        torch.manual_seed(step_seed(self._seed, epoch, step, piece, self._rank))

    def generator(self, epoch: int, step: int, piece: int) -> torch.Generator:
        """The generator of augmentation, on the device, seeded; not the stream that dropout draws from."""
        return self._generator.manual_seed(step_seed(self._seed, epoch, step, piece, self._rank) ^ 1)


class Shuffle:
    """The order of the images, epoch after epoch: one generator, seeded once, apart from everything else.

    The order depends on the seed alone, and not on architecture, ranks or device.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._before = self._generator.get_state()

    def order(self, count: int) -> torch.Tensor:
        """int64 [count], the permutation of the next epoch."""
        self._before = self._generator.get_state()
        return self._permutation(count)

    def sampled(self, labels: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """The rows of the next epoch where classes have other shares of it than of the images.

        The images of a class come equally often, but for one time; there is no drawing with replacement.

        Args:
            labels: int64 [N].
            shares: float64 [K], of each class in the epoch; their sum is 1.

        Returns:
            int64 [N], row numbers.
        """
        order = self.order(len(labels))
        bounds = (shares.cumsum(0) * len(labels)).round().long()
        counts = torch.diff(bounds, prepend=torch.zeros(1, dtype=torch.long)).tolist()
        of_order = labels[order]
        chosen = [_repeated(order[of_order == label], count) for label, count in enumerate(counts) if count]
        rows = torch.cat(chosen)
        return rows[self._permutation(len(rows))]

    def _permutation(self, count: int) -> torch.Tensor:
        return torch.randperm(count, generator=self._generator)

    def state(self, *, before: bool) -> torch.Tensor:
        """uint8 [n]: where the generator is, or where it was `before` it gave the current epoch's order."""
        return self._before if before else self._generator.get_state()

    def restore(self, state: torch.Tensor) -> None:
        """Go on from a `state`."""
        self._generator.set_state(state)


def _repeated(rows: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` of rows that follow one another again and again."""
    return rows.repeat(-(-count // len(rows)))[:count]
