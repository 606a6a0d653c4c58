"""Faults planted in real engines of real bundles: each is found, by the check that is there for it.

Consistency finds what depends on circumstances; the golden pictures find an engine that is not the model, before its
first use; `eval` finds it even where the golden pictures were made with the fault; the fingerprint of the test set
finds pictures that were prepared in another way.  Where a check is blind to a fault, that is asserted too: it is why
the others are needed.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy import preprocess
from samdeploy.backends import availability, open_session
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.errors import BackendUnavailable, BundleError
from samdeploy.evaluate import EvalOptions, evaluate_bundle, probes
from samdeploy.evaluate.consistency import Consistency, check_consistency
from tests.evaluate import faults

Seal = Callable[[Path], Bundle]

# What a fault that shows in one row, or in one size, must not be mistaken for.
SIZES = {"batch sizes"}
SIZES_AND_EQUAL = {"batch sizes", "equal images"}


@pytest.fixture(scope="module")
def honest(digits_bundle: Bundle) -> Iterator[CheckedSession]:
    with open_session(digits_bundle, "onnxruntime", device="cpu") as session:
        yield session


@pytest.fixture(scope="module")
def quick(honest: CheckedSession) -> faults.Remembered:
    return faults.Remembered(honest)


@pytest.fixture(scope="module")
def pictures(digits_bundle: Bundle) -> np.ndarray:
    return digits_bundle.golden()[0]


def failed(found: Consistency) -> set[str]:
    return {check.name for check in found.failures}


def detail(found: Consistency, name: str) -> str:
    return next(check.detail for check in found.checks if check.name == name)


def consistency_of(session: CheckedSession, bundle: Bundle) -> Consistency:
    """A short form, on the golden pictures."""
    open_again = partial(open_session, bundle, session.backend, device="cpu", precision=session.precision)
    return check_consistency(open_again, session, bundle.golden()[0], max_batch=3, repeats_wanted=5)


# --- found by the consistency checks, and by nothing else -------------------------------------------------------------

FAULTY_SESSIONS = {
    "one batch size": (faults.WrongAtOneSize, SIZES, "batch sizes", "wrong at batch size 7, in every row; worst"),
    "the end of the largest": (
        faults.WrongAtTheEndOfTheLargest,
        {*SIZES_AND_EQUAL, "shuffled order"},
        "batch sizes",
        "wrong at batch size 16, in 8 of 128 rows; worst at batch size 16, position 15",
    ),
    "one position": (
        faults.WrongAtOnePosition,
        {"positions", "equal images", "shuffled order"},
        "positions",
        "wrong at position 3; worst at batch size ",
    ),
    "the neighbours": (faults.LooksAtItsNeighbour, {"positions", "shuffled order"}, "shuffled order", "shuffle "),
    "own memory": (
        faults.GivesItsOwnMemory,
        {"kept answers"},
        "kept answers",
        "batch size ",
    ),
    "one run behind": (
        faults.OneRunBehind,
        {"equal images", "batch sizes", "shuffled order", "repeats"},
        "repeats",
        "repeat ",
    ),
    "the caller's pictures": (
        faults.WritesIntoThePictures,
        {"kept answers"},
        "kept answers",
        "a run of batch size 1 wrote into the caller's pictures",
    ),
    "now and then": (faults.NowAndThen, {"repeats"}, "repeats", "repeat "),
    "not finite": (
        faults.NotFiniteAtOneSize,
        SIZES_AND_EQUAL,
        "batch sizes",
        "wrong at batch size 5, in 1 of 5 rows; worst at batch size 5, position 4",
    ),
    "refuses one size": (
        faults.RefusesOneSize,
        SIZES_AND_EQUAL,
        "batch sizes",
        "wrong at batch size 13, in every row; worst at batch size 13: MemoryError: no memory for 13 pictures",
    ),
    "a row too few": (
        faults.ForgetsARow,
        SIZES_AND_EQUAL,
        "equal images",
        "wrong at batch size 9, in every row; worst at batch size 9: logits [8, 10] found, [9, 10] expected",
    ),
}


@pytest.mark.parametrize("fault", FAULTY_SESSIONS)
def test_a_session_that_depends_on_circumstances(fault: str, quick: faults.Remembered, pictures: np.ndarray) -> None:
    kind, expected, check, text = FAULTY_SESSIONS[fault]
    found = check_consistency(lambda: kind(quick), kind(quick), pictures)
    # Whether two threads meet in the same memory is a matter of luck; where it is the only sign, see below.
    by_luck = {"two threads"} if kind in (faults.GivesItsOwnMemory, faults.OneRunBehind) else set()
    assert expected <= failed(found) <= expected | by_luck, found.table()
    assert detail(found, check).startswith(text)
    assert found.bit_equal == ("repeats" not in expected)
    # The other checks of the product see nothing: on the golden pictures, 8 at once, the engine is right.
    if fault in ("one batch size", "now and then", "not finite", "refuses one size", "a row too few"):
        np.testing.assert_array_equal(kind(quick).run(pictures), quick.run(pictures))


def test_an_honest_session_in_the_same_place_is_not_accused(quick: faults.Remembered, pictures: np.ndarray) -> None:
    found = check_consistency(lambda: faults.Faulty(quick), faults.Faulty(quick), pictures)
    assert found.passed, found.table()


@pytest.mark.parametrize(
    ("is_off", "text"),
    [
        (lambda me, opened: len(opened) > 1 and opened[1] is me, "second session, batch size "),
        (lambda me, opened: len(opened) > 1 and opened[0] is me, "first session, while a second one is open, "),
        (lambda me, opened: "closed" in opened, "first session, after the second was closed, "),
    ],
    ids=["the second", "the first", "closing"],
)
def test_two_sessions_that_share_a_switch(
    quick: faults.Remembered, pictures: np.ndarray, is_off: Callable[..., bool], text: str
) -> None:
    open_one = partial(faults.SharesASwitch, quick, [], is_off)
    found = check_consistency(open_one, open_one(), pictures, max_batch=4, repeats_wanted=20)
    # What stays off is off in all later checks, and is consistent there.
    assert failed(found) == {"two sessions"}, found.table()
    assert detail(found, "two sessions").startswith(text)


def test_two_threads_that_share_a_buffer(honest: CheckedSession, pictures: np.ndarray) -> None:
    kind = faults.SharesItsBuffers
    found = check_consistency(lambda: kind(honest), kind(honest), pictures, max_batch=4, repeats_wanted=20)
    assert failed(found) == {"two threads"}, found.table()
    assert detail(found, "two threads").startswith("thread ")


def test_a_real_runtime_without_its_lock(digits_bundle: Bundle, pictures: np.ndarray) -> None:
    """OpenVINO's request serves one thread; the lock that our session holds is what this check is there for."""
    if availability("openvino"):
        pytest.skip(str(availability("openvino")))

    def unlocked() -> CheckedSession:
        session = open_session(digits_bundle, "openvino")
        session._session._lock = contextlib.nullcontext()  # type: ignore[union-attr]
        return session

    with unlocked() as session:
        found = check_consistency(unlocked, session, pictures, max_batch=4, repeats_wanted=20)
    assert failed(found) == {"two threads"}, found.table()


def test_two_threads_that_never_come_back(
    honest: CheckedSession, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "HANG_S", 1.0)
    monkeypatch.setattr(probes, "HANG_FACTOR", 0.0)
    kind = faults.ComesToAHalt
    found = check_consistency(lambda: kind(honest), kind(honest), pictures, max_batch=4, repeats_wanted=20)
    assert failed(found) == {"two threads"}, found.table()
    assert detail(found, "two threads").startswith("two threads did not come back within 1 s, where one alone needs ")


def test_a_stuck_engine_proves_nothing(honest: CheckedSession, pictures: np.ndarray) -> None:
    kind = faults.AlwaysTheSame
    found = check_consistency(lambda: kind(honest), kind(honest), pictures, max_batch=4, repeats_wanted=20)
    assert not found.passed
    assert "exchanged ones could not be seen" in detail(found, "positions")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_that_is_wrong_at_one_batch_size(copy_of_bundle: Path, seal: Seal, backend: str) -> None:
    """In the file itself: with 5 pictures the first two answers are exchanged; golden and eval never run 5."""
    if availability(backend):
        pytest.skip(str(availability(backend)))
    faults.edit_graph(copy_of_bundle, faults.exchanges_two_rows_at(5))
    bundle = seal(copy_of_bundle)
    pictures, logits = bundle.golden()
    with open_session(bundle, backend, device="cpu") as session:  # passes the golden check
        np.testing.assert_allclose(session.run(pictures), logits, atol=1e-4 * float(np.ptp(logits)))
        found = check_consistency(
            lambda: open_session(bundle, backend, device="cpu"), session, pictures, max_batch=6, repeats_wanted=10
        )
    # Rows of one and the same picture do not show an exchange; different ones do.
    assert failed(found) == SIZES, found.table()
    assert detail(found, "batch sizes").startswith(
        "wrong at batch size 5, in 2 of 5 rows; worst at batch size 5, position "
    )


# --- found by the golden pictures at opening, and by eval where those were made with the fault ------------------------

GRAPH_FAULTS = {
    "two classes swapped": faults.swapped_classes,
    "no normalisation": faults.no_normalisation,
    "a wrong mean": faults.wrong_mean,
}


def with_golden_of_the_fault(root: Path, seal: Seal) -> Bundle:
    """The bundle of an exporter that took the golden logits from its own wrong graph."""
    bundle = seal(root)
    with open_session(bundle, "onnxruntime", device="cpu", check=False) as session:
        np.save(root / "golden" / "logits.npy", session.run(bundle.golden()[0]))
    return seal(root)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("fault", GRAPH_FAULTS)
def test_the_golden_pictures_find_another_model(copy_of_bundle: Path, seal: Seal, fault: str, backend: str) -> None:
    if availability(backend):
        pytest.skip(str(availability(backend)))
    faults.edit_graph(copy_of_bundle, GRAPH_FAULTS[fault])
    with pytest.raises(
        BundleError, match=r"the golden images give logits that differ by .*not the model of this bundle"
    ):
        open_session(seal(copy_of_bundle), backend, device="cpu")


@pytest.mark.usefixtures("short_latency")
def test_eval_finds_what_the_golden_pictures_were_made_with(copy_of_bundle: Path, seal: Seal) -> None:
    faults.edit_graph(copy_of_bundle, faults.wrong_mean)
    right = (copy_of_bundle / "golden" / "logits.npy").read_bytes()
    bundle = with_golden_of_the_fault(copy_of_bundle, seal)
    with open_session(bundle, "onnxruntime", device="cpu") as session:  # the golden pictures are blind to it
        found = consistency_of(session, bundle)
    assert found.passed, found.table()  # and so is consistency: the engine is wrong in the same way everywhere
    # Weights give other answers than the golden ones: the reference itself is refused.
    with pytest.raises(BundleError, match=r"pytorch engine .*not the model of this bundle"):
        evaluate_bundle(bundle, EvalOptions(backend="onnxruntime", device="cpu"))
    # With the golden logits of the network, the gate says how far off the engine is.
    (copy_of_bundle / "golden" / "logits.npy").write_bytes(right)
    report = evaluate_bundle(seal(copy_of_bundle), EvalOptions(backend="onnxruntime", device="cpu"))
    assert not report.passed
    assert "logits differ by" in report.results[0].reason


@pytest.mark.usefixtures("short_latency")
def test_eval_finds_what_no_golden_picture_shows(copy_of_bundle: Path, seal: Seal) -> None:
    """A tensor is cut off at the largest value of the golden pictures, as a range that was measured on too few."""
    pictures, _ = open_bundle(copy_of_bundle).golden()
    faults.edit_graph(copy_of_bundle, faults.cut_off_at_the_largest_of(pictures, "layer3.1.relu"))
    bundle = seal(copy_of_bundle)
    with open_session(bundle, "onnxruntime", device="cpu") as session:
        found = consistency_of(session, bundle)
    assert found.passed, found.table()
    report = evaluate_bundle(bundle, EvalOptions(backend="onnxruntime", device="cpu"))
    assert not report.passed
    assert "logits differ by" in report.results[0].reason


@pytest.mark.usefixtures("short_latency")
def test_a_reduced_precision_with_two_classes_swapped(copy_of_bundle: Path, seal: Seal) -> None:
    """Rounding must not be an excuse: in bf16 the golden pictures find the swap, and so does top-1."""
    try:
        open_session(open_bundle(copy_of_bundle), "openvino", precision="bf16").close()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    faults.edit_graph(copy_of_bundle, faults.swapped_classes)
    bundle = seal(copy_of_bundle)
    with pytest.raises(BundleError, match="not the model of this bundle"):
        open_session(bundle, "openvino", precision="bf16")
    report = evaluate_bundle(bundle, EvalOptions(backend="openvino", precision="bf16", device="cpu"))
    assert not report.passed
    assert report.results[0].comparison is not None
    assert report.results[0].comparison.top1 < report.results[0].comparison.reference_top1 - 10


# --- pictures whose colour is their class -----------------------------------------------------------------------------

COLOURS = {"blue": (40, 90, 200), "green": (60, 180, 80), "red": (200, 90, 40)}


@pytest.fixture(scope="module")
def coloured_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide pictures of 64x40 with a stripe, in three colours that differ in little but the order of their channels."""
    root = tmp_path_factory.mktemp("coloured")
    random = np.random.default_rng(3)
    for split, count in (("train", 32), ("val", 8), ("test", 12)):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.array(colour) + random.normal(0, 25, (40, 64, 3))
                left = int(random.integers(0, 56))
                pixels[:, left : left + 8] += random.normal(0, 60)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def coloured_root(coloured_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a network that knows the three colours.  Do not write into it."""
    from samdeploy.export import ExportOptions, export_run
    from samdeploy.train.loop import train
    from samdeploy.train.recipe import load_recipe

    settings = [
        *(f"data.root={coloured_pictures}", "model.arch=sam-resnet18", "model.pretrained=false", "model.gate=identity"),
        *("image.height=32", "image.width=32", "training.epochs=3", "training.batch_size=16", "training.device=cpu"),
        *("training.learning_rate=5e-4", "training.patience=0"),
    ]
    run = train(load_recipe("folder", settings), runs_root=tmp_path_factory.mktemp("runs"))
    export_run(run, ExportOptions(engine="onnxruntime"))
    return run


@pytest.fixture
def coloured(coloured_root: Path, tmp_path: Path) -> Path:
    """The folder of a copy of the coloured bundle, beside a copy of its run record."""
    shutil.copytree(coloured_root, tmp_path / "run")
    return tmp_path / "run" / "bundle"


def evaluate_coloured(bundle: Bundle):  # type: ignore[no-untyped-def]
    return evaluate_bundle(bundle, EvalOptions(backend="onnxruntime", device="cpu"))


@pytest.mark.usefixtures("short_latency")
def test_blue_for_red(coloured: Path, seal: Seal) -> None:
    honest = evaluate_coloured(open_bundle(coloured))
    assert honest.passed and honest.test_set == "as at training"
    assert honest.results[0].comparison is not None and honest.results[0].comparison.top1 > 90

    faults.edit_graph(coloured, faults.blue_first)
    with pytest.raises(BundleError, match="not the model of this bundle"):
        open_session(seal(coloured), "onnxruntime", device="cpu")
    report = evaluate_coloured(seal(coloured))
    assert not report.passed
    assert report.results[0].comparison is not None
    assert report.results[0].comparison.top1 < 60  # blue and red are taken for each other, green stays


def test_blue_for_red_does_not_show_in_grey_pictures(copy_of_bundle: Path, seal: Seal) -> None:
    """Three equal channels have no order: for the digits such an engine is right, and is not accused."""
    faults.edit_graph(copy_of_bundle, faults.blue_first)
    open_session(seal(copy_of_bundle), "onnxruntime", device="cpu").close()


@pytest.mark.usefixtures("short_latency")
def test_pictures_cut_where_training_squeezed_them(coloured: Path, seal: Seal) -> None:
    """The manifest names another fit.  The engine is right and agrees with PyTorch: the pictures are other ones."""
    faults.set_preprocessing(coloured, fit="center_crop", resize_short=32)
    bundle = seal(coloured)
    open_session(bundle, "onnxruntime", device="cpu").close()  # the golden pictures are stored prepared
    report = evaluate_coloured(bundle)
    assert report.test_set == "differs from the one at training"


def nearest(picture: Image.Image, height: int, width: int) -> Image.Image:
    return picture.resize((width, height), Image.Resampling.NEAREST)


def without_antialiasing(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Bilinear between the four nearest pixels, as PyTorch and OpenCV do it unless told otherwise."""
    image = np.array(picture)
    rows = (np.arange(height) + 0.5) * image.shape[0] / height - 0.5
    columns = (np.arange(width) + 0.5) * image.shape[1] / width - 0.5
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        row, column = row.clip(0, image.shape[0] - 1), column.clip(0, image.shape[1] - 1)
        return image[row][:, column].astype(np.float64)

    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return Image.fromarray((upper * (1 - down) + lower * down + 0.5).astype(np.uint8))


def horizontal_first(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Pillow's own order before version 13: single levels differ."""
    return picture.resize((width, picture.height), Image.Resampling.BILINEAR).resize(
        (width, height), Image.Resampling.BILINEAR
    )


@pytest.mark.usefixtures("short_latency")
@pytest.mark.parametrize("wrong", [nearest, without_antialiasing, horizontal_first])
def test_pictures_resized_in_another_way(
    coloured_root: Path, wrong: Callable[..., Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocess, "_resize_exact", wrong)
    report = evaluate_coloured(open_bundle(coloured_root / "bundle"))
    assert report.test_set == "differs from the one at training"


def test_a_manifest_with_another_resize_or_size_is_refused(coloured: Path, seal: Seal) -> None:
    faults.set_preprocessing(coloured, resize="nearest")
    with pytest.raises(BundleError, match="resize 'nearest' found, this version knows only 'bilinear-antialias"):
        seal(coloured)
    faults.set_preprocessing(coloured, resize="bilinear-antialias-vertical-first-q22", height=64)
    with pytest.raises(BundleError, match="the preprocessing and the 3 classes ask for"):
        seal(coloured)


def test_a_manifest_with_another_mean(coloured: Path, seal: Seal) -> None:
    """The mean is inside the graph; the manifest's is what PyTorch is rebuilt with, and its golden logits show it."""
    faults.set_preprocessing(coloured, mean=[0.485, 0.456, 0.485])
    bundle = seal(coloured)
    with pytest.raises(BundleError, match=r"pytorch engine .*not the model of this bundle"):
        open_session(bundle, "pytorch", device="cpu")
    with pytest.raises(BundleError, match=r"pytorch engine .*not the model of this bundle"):
        evaluate_coloured(bundle)
