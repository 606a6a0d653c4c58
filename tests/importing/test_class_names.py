"""Whose names the classes get, in which order, and when nobody can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from samdeploy.errors import InputError
from samdeploy.importing.class_names import class_names, difference, names_beside, other_order, read_class_names

FILE = "--classes names.txt"
THREE = ("cat", "dog", "eel")


@pytest.mark.parametrize(
    "content",
    [
        "cat\ndog\neel",
        "cat\ndog\neel\n\n\n",
        "\ufeffcat\r\ndog\r\neel\r\n",
        "  cat\t\ndog \n eel",
        '["cat", "dog", "eel"]',
        '\ufeff{"0": "cat", "2": "eel", "1": "dog"}\n',
        '{"eel": 2, "cat": 0, "dog": 1}',
        "0 cat\n1 dog\n2 eel",
        "0\tcat\n1\tdog\n2\teel",
        "0: cat\n1: dog\n2: eel",
        "1 cat\n2 dog\n3 eel",
    ],
)
def test_forms_of_files(content: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content.encode())
    assert read_class_names(path) == THREE


def test_names_that_begin_with_numbers_stay(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    for names in (
        ("0", "1", "2"),
        ("1 euro", "2 euro"),
        ("0 euro", "2 euro"),
        ("2 a", "3 b"),
        ("Grey whale, old", "n01 tench"),
    ):
        path.write_text("\n".join(names))
        assert read_class_names(path) == names


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"cat\n\ndog\n", r"class 1 \(line 2\) is empty; a name expected"),
        (b"cat\ndog\ncat\n", "classes 0 and 2 are both 'cat'; each name once expected"),
        (b'["cat", "cat"]', "classes 0 and 1 are both 'cat'"),
        (b'["cat", 3]', "one class name a line in UTF-8 expected, or a JSON list"),
        (b'{"0": "cat", "2": "dog"}', "one class name a line in UTF-8 expected, or a JSON list"),
        (b'{"0": ["n01440764", "tench"]}', "one class name a line in UTF-8 expected, or a JSON list"),
        (b"[" * 100_000, "one class name a line in UTF-8 expected, or a JSON list"),
        (b"cat\n" + b"d" * 1001, "class 1 has 1,001 characters, at most 1,000 expected"),
        (b"[cat]", "one class name a line in UTF-8 expected, or a JSON list"),
        ("cat\ndog".encode("utf-16"), "one class name a line in UTF-8 expected"),
        (None, "No such file or directory; a text file with one class name a line expected"),
    ],
)
def test_files_that_are_refused(content: bytes | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"--classes .*names.txt: {problem}"):
        read_class_names(path)


def given(names: tuple[str, ...], folders: tuple[str, ...] = (), count: int = 3, **options: bool) -> tuple[str, ...]:
    return class_names(count, [(FILE, names)], folders, **options)


def test_names_of_a_file() -> None:
    assert given(THREE) == given(THREE, THREE) == given(THREE, ("eel",)) == THREE
    assert given(("eel", "cat", "dog")) == ("eel", "cat", "dog")  # no folders, no other order
    assert given(("1", "2", "10"), ("1", "10", "2")) == ("1", "2", "10")
    assert given(("1", "10", "2"), ("1", "2", "10")) == ("1", "10", "2")


def test_lines_that_begin_with_the_folder_names() -> None:
    lines = ("n01 tench", "n02 goldfish, fish", "n03 shark")
    assert given(lines) == lines
    assert given(lines, ("n01", "n03")) == ("n01", "n02", "n03")
    with pytest.raises(InputError, match=f"{FILE}: no class 'n01' and 1 more, .* first classes are 'n01 tench'"):
        given(lines, ("n01", "n04"))


def test_another_count() -> None:
    with pytest.raises(InputError, match=f"^{FILE}: 3 class names found, the network has 10 classes$"):
        given(THREE, count=10)


def test_another_order() -> None:
    swapped = ("cat", "eel", "dog")
    with pytest.raises(
        InputError, match=r"class 1 is 'eel', but in the order of the folders, .* 'dog'. .* add --trust-order if"
    ):
        given(swapped, THREE)
    assert given(swapped, THREE, trust_order=True) == swapped
    assert given(swapped, ("cat", "eel")) == swapped
    with pytest.raises(InputError, match=r"class 1 is 'eel', but in the order of the folders"):
        given((*swapped, "fox"), THREE, count=4)


def test_the_first_difference_is_named() -> None:
    assert difference(THREE, THREE, "w.pth") is None
    assert difference(THREE, ("cat", "eel", "dog"), "w.pth") == "class 1 is 'dog', and 'eel' in w.pth"
    assert difference(THREE, THREE[:2], "w.pth") == "3 class names given, w.pth has 2"


def test_folders_without_a_class() -> None:
    with pytest.raises(InputError) as caught:
        given(THREE, ("ape", "bee", "cat"))
    assert str(caught.value) == (
        f"{FILE}: no class 'ape' and 1 more, though a folder of images is called so; the first classes are 'cat', "
        "'dog', 'eel'. Rename it, or give other names: --classes FILE"
    )


def test_the_first_source_that_knows_the_folders() -> None:
    published = [("one", ("a", "b", "c")), ("two", THREE)]
    assert class_names(3, published, ("dog", "eel")) == THREE
    assert class_names(3, published, ()) == ("a", "b", "c")


def test_folders_alone() -> None:
    assert class_names(3, [], ("eel", "dog", "cat")) == THREE
    for folders, problem in (
        ((), "class names are not known; give them, one a line: --classes FILE"),
        (("cat", "dog"), "the network has 3 classes, the images have 2 folders; give all names in the order of the "),
        (("1", "2", "10"), "class 1 is '10' for torchvision and '2' for timm. Give the names in the order of the netw"),
    ):
        with pytest.raises(InputError, match=problem):
            class_names(3, [], folders)


@pytest.mark.parametrize("name", ["", "  ", "\ud800"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InputError, match=r"names.txt: class 1 is '.*'; a name expected: --classes FILE"):
        given(("cat", name, "eel"))


def test_a_file_beside_the_folders_is_taken_where_it_names_just_them(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    assert names_beside(tmp_path, 3, THREE) == []
    path.write_text("dog\ncat\neel\n")
    assert names_beside(tmp_path, 3, THREE) == [(str(path), ("dog", "cat", "eel"))]
    for count, folders in ((4, THREE), (3, ("cat", "dog")), (3, ("cat", "dog", "fox"))):
        assert names_beside(tmp_path, count, folders) == []
    path.write_text("dog\n\ndog\n")
    assert names_beside(tmp_path, 3, THREE) == []


def test_another_order_than_the_folders_is_shown() -> None:
    assert other_order(("cat", "eel", "fox"), ("cat", "fox")) is None
    assert other_order(("1", "2", "10"), ("1", "10", "2")) is None  # as timm sorts them
    assert other_order(("fox", "eel", "cat", "asp"), ("cat", "fox")) == (
        "the classes are in another order than the folders: 0 = fox, 1 = eel, 2 = cat, ..."
    )
