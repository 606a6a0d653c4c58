# One library per runtime that is found here: libsamdeploy-NAME.so, which lies beside libsamdeploy.so and is loaded when
# a bundle is opened with it.  None is required: without one, its name is answered with an error that says so.
set(SAMDEPLOY_BACKENDS)

# samdeploy_backend(NAME SOURCE [LIBRARY...])
function(samdeploy_backend name source)
  add_library(samdeploy_${name} MODULE ${source})
  target_include_directories(samdeploy_${name} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
  target_compile_features(samdeploy_${name} PRIVATE cxx_std_17)
  target_compile_options(samdeploy_${name} PRIVATE -Wall -Wextra -Wpedantic)
  target_compile_definitions(samdeploy_${name} PRIVATE SAMDEPLOY_VERSION="${PROJECT_VERSION}")
  target_link_libraries(samdeploy_${name} PRIVATE ${ARGN} nlohmann_json::nlohmann_json ${CMAKE_DL_LIBS})
  set_target_properties(samdeploy_${name} PROPERTIES
    OUTPUT_NAME samdeploy-${name} CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON CXX_EXTENSIONS OFF
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR} INSTALL_RPATH_USE_LINK_PATH ON)
  samdeploy_sanitize(samdeploy_${name})
  # Whoever links the library has its runtimes built, too.
  add_dependencies(samdeploy samdeploy_${name})
  install(TARGETS samdeploy_${name} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  set(SAMDEPLOY_BACKENDS ${SAMDEPLOY_BACKENDS} ${name} PARENT_SCOPE)
endfunction()

# Wheels ship runtimes: `pip install openvino` is all that OpenVINO takes.
include(${CMAKE_CURRENT_LIST_DIR}/python.cmake)
function(samdeploy_python_package name result)
  set(${result} "" PARENT_SCOPE)
  if(samdeploy_python)
    execute_process(
      COMMAND ${samdeploy_python} -c
              "import importlib.util as u, os; print(os.path.dirname(u.find_spec('${name}').origin), end='')"
      OUTPUT_VARIABLE folder RESULT_VARIABLE missing ERROR_QUIET)
    if(missing EQUAL 0)
      set(${result} ${folder} PARENT_SCOPE)
    endif()
  endif()
endfunction()

# OpenVINO: a CMake package.
if(NOT OpenVINO_DIR)
  samdeploy_python_package(openvino wheel)
  if(wheel)
    set(OpenVINO_DIR ${wheel}/cmake CACHE PATH "" FORCE)
  endif()
endif()
find_package(OpenVINO QUIET COMPONENTS Runtime)
if(OpenVINO_FOUND)
  samdeploy_backend(openvino src/openvino.cpp openvino::runtime)
endif()

# ONNX Runtime: its headers (Debian 13: libonnxruntime-dev; or an unpacked release), and at run time its library, from
# the wheel or the system.
find_path(SAMDEPLOY_ONNXRUNTIME_INCLUDE onnxruntime_c_api.h PATH_SUFFIXES onnxruntime onnxruntime/core/session)
if(SAMDEPLOY_ONNXRUNTIME_INCLUDE)
  find_library(SAMDEPLOY_ONNXRUNTIME_LIBRARY onnxruntime)
  if(NOT SAMDEPLOY_ONNXRUNTIME_LIBRARY)
    samdeploy_python_package(onnxruntime wheel)
    file(GLOB in_wheel ${wheel}/capi/libonnxruntime.so.*)
    if(wheel AND in_wheel)
      list(GET in_wheel 0 library)
      set(SAMDEPLOY_ONNXRUNTIME_LIBRARY ${library} CACHE FILEPATH "" FORCE)
    endif()
  endif()
  set(library ${SAMDEPLOY_ONNXRUNTIME_LIBRARY})
  if(NOT library)
    set(library "")
  endif()
  samdeploy_backend(onnxruntime src/onnxruntime.cpp)
  target_include_directories(samdeploy_onnxruntime SYSTEM PRIVATE ${SAMDEPLOY_ONNXRUNTIME_INCLUDE})
  target_compile_definitions(samdeploy_onnxruntime PRIVATE SAMDEPLOY_ONNXRUNTIME_LIBRARY="${library}")
endif()

# TensorRT: NvInfer.h, its library, and CUDA's runtime.
find_path(SAMDEPLOY_TENSORRT_INCLUDE NvInfer.h)
find_library(SAMDEPLOY_TENSORRT_LIBRARY NAMES nvinfer)
include(${CMAKE_CURRENT_LIST_DIR}/cuda.cmake)
if(SAMDEPLOY_TENSORRT_INCLUDE AND SAMDEPLOY_TENSORRT_LIBRARY AND TARGET samdeploy::cudart)
  samdeploy_backend(tensorrt src/tensorrt.cpp ${SAMDEPLOY_TENSORRT_LIBRARY} samdeploy::cudart)
  target_include_directories(samdeploy_tensorrt SYSTEM PRIVATE ${SAMDEPLOY_TENSORRT_INCLUDE})
endif()

if(SAMDEPLOY_BACKENDS)
  list(JOIN SAMDEPLOY_BACKENDS ", " names)
  message(STATUS "samdeploy: runtimes ${names}")
else()
  set(searched "Python ${samdeploy_python} has no openvino: pip install openvino, or name another Python")
  if(NOT samdeploy_python)
    set(searched "No Python was found, whose openvino could be taken: name one")
  endif()
  message(WARNING "samdeploy: no runtime found, so that no bundle can be opened. ${searched} with "
    "-DPython3_EXECUTABLE=, or OpenVINO itself with -DOpenVINO_DIR=")
endif()
if(NOT SAMDEPLOY_ONNXRUNTIME_INCLUDE)
  message(STATUS "samdeploy: without ONNX Runtime: no onnxruntime_c_api.h (Debian 13: libonnxruntime-dev; or an unpacked "
    "release: -DSAMDEPLOY_ONNXRUNTIME_INCLUDE=.../include)")
endif()
if(NOT TARGET samdeploy_tensorrt)
  message(STATUS "samdeploy: without TensorRT: no NvInfer.h, libnvinfer or CUDA runtime")
endif()
