# Target samdeploy::cudart: CUDA's runtime, of a toolkit or of the wheels nvidia-cuda-runtime and nvidia-cuda-crt, which
# have headers and the library but neither a compiler nor the unversioned name that FindCUDAToolkit wants.
include(${CMAKE_CURRENT_LIST_DIR}/python.cmake)
set(wheels)
if(samdeploy_python)
  execute_process(
    COMMAND ${samdeploy_python} -c
            "import sysconfig, glob; print(';'.join(glob.glob(sysconfig.get_paths()['purelib'] + '/nvidia/cu1*')), end='')"
    OUTPUT_VARIABLE wheels ERROR_QUIET)
endif()
file(GLOB toolkits /usr/local/cuda /usr/local/cuda-*)
# The folder of this header holds the whole: the wheel nvidia-cuda-runtime alone lacks it.
find_path(SAMDEPLOY_CUDA_INCLUDE crt/host_defines.h HINTS ${wheels} ${toolkits} PATH_SUFFIXES include)
find_library(SAMDEPLOY_CUDART NAMES cudart libcudart.so.13 libcudart.so.12 HINTS ${wheels} ${toolkits}
  PATH_SUFFIXES lib lib64)
if(EXISTS "${SAMDEPLOY_CUDA_INCLUDE}/cuda_runtime_api.h" AND SAMDEPLOY_CUDART AND NOT TARGET samdeploy::cudart)
  add_library(samdeploy::cudart UNKNOWN IMPORTED)
  set_target_properties(samdeploy::cudart PROPERTIES
    IMPORTED_LOCATION ${SAMDEPLOY_CUDART} INTERFACE_INCLUDE_DIRECTORIES ${SAMDEPLOY_CUDA_INCLUDE})
endif()
