# find_package(samdeploy) for sources: builds the library as part of the project that asks.  It is what
# `samdeploy.cmake_dir()` of the Python package names; nothing is written beside the sources.
# Not EXCLUDE_FROM_ALL, which would keep the library out of what the project installs.
if(NOT TARGET samdeploy::samdeploy)
  get_filename_component(samdeploy_SOURCE_DIR "${CMAKE_CURRENT_LIST_DIR}/../.." REALPATH)
  add_subdirectory("${samdeploy_SOURCE_DIR}" "${CMAKE_BINARY_DIR}/_deps/samdeploy")
endif()
