"""Where the C++ library's sources lie, so that C and C++ programs find them through the Python package.

They travel with the wheel, because a library built elsewhere would tie it to one OpenVINO and one C++ runtime.
"""

from __future__ import annotations

from pathlib import Path

from samdeploy.errors import InputError

_PACKAGE = Path(__file__).parent


def include() -> str:
    """The folder of `samdeploy.h` and `samdeploy.hpp`, for a compiler's ``-I``.

    Raises:
        InputError: this installation has no C++ sources.
    """
    return str(_sources() / "include")


def cmake_dir() -> str:
    """The folder of a CMake package that builds the C++ library as a part of the project that asks for it:

    ```sh
    cmake -S . -B build -Dsamdeploy_DIR=$(python -c "import samdeploy; print(samdeploy.cmake_dir())")
    ```

    with `find_package(samdeploy)` and `target_link_libraries(program samdeploy::samdeploy)` in the project.

    Raises:
        InputError: this installation has no C++ sources.
    """
    return str(_sources() / "cmake" / "source")


def _sources() -> Path:
    """`cpp` inside the installed package, or beside it in a checkout."""
    for folder in (_PACKAGE / "cpp", _PACKAGE.parent / "cpp"):
        if (folder / "include" / "samdeploy.h").is_file():
            return folder
    raise InputError(
        f"no C++ sources found: neither {_PACKAGE / 'cpp'} nor {_PACKAGE.parent / 'cpp'} holds include/samdeploy.h; "
        "install samdeploy from its wheel or its repository"
    )
