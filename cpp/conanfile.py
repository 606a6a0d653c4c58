"""Conan 2 recipe of the C++ library: `conan create cpp`.

Runtimes are found by CMake as in any other build (docs/embedding.md): what this machine has of OpenVINO, ONNX Runtime
and TensorRT is built as a part of its own beside the library.
"""

import re
from pathlib import Path

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout


class Samdeploy(ConanFile):
    name = "samdeploy"
    description = "Opens, verifies and runs samdeploy's bundles"
    license = "Apache-2.0"
    topics = ("image-classification", "onnx", "openvino", "tensorrt")
    package_type = "shared-library"
    settings = "os", "arch", "compiler", "build_type"
    exports_sources = "CMakeLists.txt", "cmake/*", "include/*", "src/*"

    def set_version(self) -> None:
        text = (Path(self.recipe_folder) / "CMakeLists.txt").read_text()
        self.version = re.search(r"VERSION (\d+\.\d+\.\d+)", text.split("project(")[1]).group(1)

    def requirements(self) -> None:
        self.requires("libjpeg-turbo/[>=3.0 <4]")
        self.requires("libpng/[>=1.6 <2]")
        self.requires("openssl/[>=3 <4]")
        self.requires("nlohmann_json/[>=3.9 <4]")

    def validate(self) -> None:
        check_min_cppstd(self, 17)

    def layout(self) -> None:
        cmake_layout(self)

    def generate(self) -> None:
        CMakeToolchain(self).generate()
        CMakeDeps(self).generate()

    def build(self) -> None:
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self) -> None:
        CMake(self).install()

    def package_info(self) -> None:
        self.cpp_info.libs = ["samdeploy"]
        self.cpp_info.set_property("cmake_file_name", "samdeploy")
        self.cpp_info.set_property("cmake_target_name", "samdeploy::samdeploy")
        self.cpp_info.set_property("pkg_config_name", "samdeploy")
