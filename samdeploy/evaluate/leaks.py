"""Whether the test pictures were seen in training: compared with the hashes that the run left of its own."""

from __future__ import annotations

from collections.abc import Sequence

from samdeploy.bundle import Bundle
from samdeploy.data.leaks import LeakReport, find_leaks
from samdeploy.data.picture_hashes import hash_pictures, read_hashes
from samdeploy.evaluate.pictures import PreparedPictures
from samdeploy.run import HASHES_FILE

_BATCH = 256


def find_test_leaks(bundle: Bundle, pictures: PreparedPictures, names: Sequence[str]) -> LeakReport | None:
    """Test pictures that are in the train or val split of the run beside the bundle; None where no run lies there.

    Training compares its own splits; here the pictures may be others (`--data`), and be those that were trained on.

    Args:
        bundle: in the run's folder.
        pictures: all test pictures.
        names: of each.

    Raises:
        DatasetError: the run's hashes are damaged.
    """
    path = bundle.root.resolve().parent / HASHES_FILE
    if not path.is_file():
        return None
    test = hash_pictures(pictures.batches(_BATCH), names)
    return find_leaks({**read_hashes(path), "test": test}, into=("test",))
