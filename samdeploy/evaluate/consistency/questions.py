"""What an engine is asked, so that its answers can be held against each other: one function per question.

Each gives back all answers and what was left out for want of time.  Nothing is judged here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.session import Session
from samdeploy.errors import BackendUnavailable
from samdeploy.evaluate.consistency.answers import Answers, ranges_text

# Each position of the largest batch is tried with so many images, and each image at so many positions: an odd
# number, so that one wrong position never splits an image's votes.
ROTATIONS = 7
# An odd number as well.
ORDERS = 5
# Runs of each thread.  Of two sessions' worth of work that share one buffer, every second run or so was wrong.
THREAD_ROUNDS = 24
# How long two threads are waited for: a multiple of what one takes for the same work, with a floor for small networks.
HANG_S = 60.0
HANG_FACTOR = 5.0

_SEED = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """The answers to one question.

    Attributes:
        answers: of all runs that were made.
        runs: how many.
        left_out: what was planned and not done, in words; "" where all was done.
        broken: a rule that was broken where no difference of logits would show it; "" where none was.
        exact: whether equal batches gave equal bits, where that was asked; None where it was not.
    """

    answers: Answers
    runs: int
    left_out: str = ""
    broken: str = ""
    exact: bool | None = None


def images_for(max_batch: int) -> int:
    """How many different images the questions up to this batch size need."""
    return 2 * max_batch + 2


class Examined:
    """A session with the images that it is asked about.

    Attributes:
        images: uint8 [`images_for(max_batch)` or more, H, W, 3].
        max_batch: largest batch size it is asked to answer; one more is tried too.
    """

    def __init__(self, session: Session, images: UInt8Array, max_batch: int) -> None:
        self.session = session
        self.images = images
        self.max_batch = max_batch
        self._classes = 0

    def batch(self, picks: Sequence[int]) -> UInt8Array:
        """uint8 [len(picks), H, W, 3], a copy."""
        return self.images[list(picks)]

    def ask(self, picks: Sequence[int], session: Session | None = None) -> Float32Array | str:
        """The logits of a batch, float32 [len(picks), K]; or why there are none.

        Whatever the engine raises is its answer: a batch size that cannot be run is a finding, not an accident.
        """
        return self.ask_batch(self.batch(picks), session)

    def ask_batch(self, batch: UInt8Array, session: Session | None = None) -> Float32Array | str:
        """The same for uint8 [N, H, W, 3]."""
        try:
            logits = (session or self.session).run(batch)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        classes = self._classes or logits.shape[-1]
        if logits.shape != (len(batch), classes):
            return f"logits {list(logits.shape)} found, {[len(batch), classes]} expected"
        self._classes = classes
        return logits

    def sizes(self) -> list[int]:
        """All batch sizes, those that show most first: the ends, powers of two and their neighbours, then the rest."""
        end = self.max_batch
        powers = [1 << bit for bit in range(1, end.bit_length())]
        first = [1, end, end + 1, *powers, *(power + 1 for power in powers), *(power - 1 for power in powers)]
        return [size for size in dict.fromkeys([*first, *range(1, end + 2)]) if 1 <= size <= end + 1]


def kept_answers(examined: Examined, deadline: float) -> Asked:
    """An answer belongs to the caller: later runs leave it as it is, and no run writes into the images."""
    answers, runs = Answers(), 0
    sizes = list(dict.fromkeys((1, examined.max_batch)))
    for size in sizes:
        if time.monotonic() > deadline and runs:
            return Asked(answers, runs, f"batch size {size} not tried")
        # Image 0 alone, the others in batches: an image that was tried in both would have two answers.
        mine = [0] if size == 1 else list(range(1, size + 1))
        others = [image + size for image in mine]
        batch = examined.batch(mine)
        kept = examined.ask_batch(batch)
        answers.add(mine, kept, f"batch size {size}")
        if not np.array_equal(batch, examined.batch(mine)):
            return Asked(answers, runs + 1, broken=f"a run of batch size {size} wrote into the caller's images")
        for later in (others, [others[0]], others):
            examined.ask(later)
        runs += 4
        answers.add(mine, kept, f"batch size {size}, looked at again after three other runs", counts=False)
    return Asked(answers, runs)


def equal_images(examined: Examined, deadline: float) -> Asked:
    """One image at every position of a batch, for every batch size: equal rows."""
    sizes = [size for size in examined.sizes() if size > 1]
    return _batches(examined, deadline, ((f"batch size {size}", [size] * size) for size in sizes))


def sizes_and_positions(examined: Examined, deadline: float) -> Asked:
    """Every batch size, each with the images turned round to other positions; the largest one several times."""
    images = examined.max_batch + 1
    random = np.random.default_rng(_SEED)

    def turned(size: int, by: int) -> tuple[str, list[int]]:
        return f"batch size {size}", [(by + position) % images for position in range(size)]

    planned = [turned(1, image) for image in range(images)]
    planned += [turned(size, int(random.integers(images))) for size in examined.sizes() if size > 1]
    turns = np.linspace(0, images, min(ROTATIONS, images), endpoint=False).astype(int)
    planned += [turned(examined.max_batch, int(turn)) for turn in turns if examined.max_batch > 1]
    return _batches(examined, deadline, planned)


def large_batches(examined: Examined, sizes: Sequence[int], deadline: float) -> Asked:
    """Batch sizes above all others, each once, with the images of the largest of those again and again."""
    images = examined.max_batch + 1
    planned = [(f"batch size {size}", [position % images for position in range(size)]) for size in (images, *sizes)]
    return _batches(examined, deadline, planned)


def shuffled_order(examined: Examined, deadline: float) -> Asked:
    """The same images among other companions: cut into batches in order, and in shuffled orders."""
    size, images = examined.max_batch, 2 * examined.max_batch
    random = np.random.default_rng(_SEED)
    orders = {"in order": list(range(images))}
    orders |= {f"shuffle {number}": random.permutation(images).tolist() for number in range(1, ORDERS)}
    planned = [
        (f"{name}, batch {start // size + 1} of size {size}", order[start : start + size])
        for name, order in orders.items()
        for start in range(0, images, size)
    ]
    return _batches(examined, deadline, planned)


def two_sessions(examined: Examined, open_again: Callable[[], Session], deadline: float) -> Asked:
    """A second session of the same engine: it answers as the first, and the first as before, also once it is closed."""
    answers = Answers()
    batches = _single_and_largest(examined, 0)
    runs = 0

    def all_of(run: str, session: Session | None = None, *, counts: bool) -> None:
        nonlocal runs
        for picks in batches:
            answers.add(picks, examined.ask(picks, session), f"{run}, batch size {len(picks)}", counts=counts)
            runs += 1

    all_of("the only session", counts=True)
    if time.monotonic() > deadline:
        return Asked(answers, runs, "no second session was opened")
    try:
        second = open_again()
    except BackendUnavailable as error:  # no memory for two, for example
        return Asked(answers, runs, f"no second session could be opened: {error}")
    except Exception as error:
        return Asked(answers, runs, broken=f"a second session cannot be opened: {error}")
    try:
        all_of("second session", second, counts=False)
        all_of("first session, while a second one is open", counts=False)
        all_of("second session, once more", second, counts=False)
    finally:
        second.close()
    all_of("first session, after the second was closed", counts=False)
    return Asked(answers, runs)


def repeats(examined: Examined, count: int, deadline: float) -> Asked:
    """A few batches again and again in a random order, so that no run can live on what the one before left behind."""
    batches = [[examined.max_batch + 1], *_single_and_largest(examined, 0)]
    random = np.random.default_rng(_SEED)
    # Mostly single images: they cost least, and what goes wrong now and then needs many runs to be seen.
    order = random.choice(len(batches), size=count, p=(0.475, 0.475, 0.05))
    order[:3] = np.arange(len(batches))[: min(3, count)]
    answers, exact = Answers(), True
    first: dict[int, Float32Array] = {}
    for number, chosen in enumerate(order):
        if time.monotonic() > deadline and number:
            return Asked(answers, number, f"{count - number} of {count} repeats not made", exact=exact)
        logits = examined.ask(batches[chosen])
        if isinstance(logits, str):
            exact = False
        else:
            exact &= np.array_equal(first.setdefault(int(chosen), logits.copy()), logits)
        answers.add(batches[chosen], logits, f"repeat {number + 1}, batch size {len(batches[chosen])}")
    return Asked(answers, count, exact=exact)


def two_threads(examined: Examined, deadline: float) -> Asked:
    """Two threads at once on one session, each with images of its own: the answers of one thread alone."""
    work = [_single_and_largest(examined, 0), _single_and_largest(examined, examined.max_batch + 1)[::-1]]
    answers = Answers()
    start = time.monotonic()
    for batches in work:
        for picks in batches:
            answers.add(picks, examined.ask(picks), f"one thread, batch size {len(picks)}")
    alone_s = time.monotonic() - start
    runs = sum(map(len, work))
    if time.monotonic() > deadline:
        return Asked(answers, runs, "no second thread was started")

    found: list[list[Float32Array | str]] = [[], []]
    begin = threading.Barrier(2)

    def keep_asking(thread: int) -> None:
        begin.wait()
        for turn in range(THREAD_ROUNDS):
            if time.monotonic() > deadline and turn:
                return
            logits = examined.ask(work[thread][turn % len(work[thread])])
            found[thread].append(logits if isinstance(logits, str) else logits.copy())

    # Daemons: a session that never comes back must not keep the program from ending.
    threads = [threading.Thread(target=keep_asking, args=(index,), daemon=True) for index in range(2)]
    for thread in threads:
        thread.start()
    # In turns, the threads take as long as one that does the work of both; slower by this factor is not at work.
    expected_s = min(alone_s * THREAD_ROUNDS / 2, deadline - time.monotonic()) + alone_s
    patience = max(HANG_S, HANG_FACTOR * expected_s)
    end = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    for index, logits in enumerate(found):
        for turn, answer in enumerate(list(logits)):
            picks = work[index][turn % len(work[index])]
            answers.add(picks, answer, f"thread {index + 1}, run {turn + 1}, batch size {len(picks)}", counts=False)
    done = sum(map(len, found))
    broken = left_out = ""
    if any(thread.is_alive() for thread in threads):
        broken = f"two threads did not come back within {patience:.0f} s, where one alone needs {expected_s:.1f} s"
    elif done < 2 * THREAD_ROUNDS:
        left_out = f"{2 * THREAD_ROUNDS - done} of {2 * THREAD_ROUNDS} runs in threads not made"
    return Asked(answers, runs + done, left_out, broken)


def _single_and_largest(examined: Examined, start: int) -> list[list[int]]:
    """A batch of one and one of the largest size, without an image in common: each answer has one circumstance."""
    return [[start], [*range(start + 1, start + 1 + examined.max_batch)]]


def _batches(examined: Examined, deadline: float, planned: Iterable[tuple[str, list[int]]]) -> Asked:
    """Run batches in turn until the time is up; the first one is run in any case."""
    answers, left = Answers(), list(planned)
    runs = 0
    while left and (not runs or time.monotonic() <= deadline):
        run, picks = left.pop(0)
        answers.add(picks, examined.ask(picks), run)
        runs += 1
    sizes = [len(picks) for _, picks in left]
    text = f"{len(left)} of {len(left) + runs} runs not made, of batch sizes {ranges_text(sizes)}" if left else ""
    return Asked(answers, runs, text)
