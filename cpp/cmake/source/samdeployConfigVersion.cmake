# The version that ../../CMakeLists.txt states; 0.1.3 serves who asks for 0.1, and nobody who asks for 0.2.
file(STRINGS "${CMAKE_CURRENT_LIST_DIR}/../../CMakeLists.txt" line REGEX "^project\\(samdeploy VERSION ")
string(REGEX REPLACE "^project\\(samdeploy VERSION ([0-9]+)\\.([0-9]+)\\.([0-9]+).*" "\\1.\\2.\\3" PACKAGE_VERSION "${line}")
string(REGEX MATCH "^[0-9]+\\.[0-9]+" minor "${PACKAGE_VERSION}")
set(PACKAGE_VERSION_COMPATIBLE FALSE)
if(PACKAGE_FIND_VERSION STREQUAL "" OR (PACKAGE_FIND_VERSION VERSION_LESS_EQUAL PACKAGE_VERSION
    AND "${PACKAGE_FIND_VERSION_MAJOR}.${PACKAGE_FIND_VERSION_MINOR}" STREQUAL minor))
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_EXACT TRUE)
endif()
