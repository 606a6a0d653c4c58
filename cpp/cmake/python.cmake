# samdeploy_python: the Python whose packages bring runtimes.  What -DPython3_EXECUTABLE= names; else, where these
# sources were installed from a wheel, the Python that they were installed for; else the one that CMake finds.
set(samdeploy_python "")
if(DEFINED CACHE{Python3_EXECUTABLE})
  set(Python3_EXECUTABLE "" CACHE FILEPATH "Python whose packages bring runtimes")  # makes a relative path absolute
  set(samdeploy_python ${Python3_EXECUTABLE})
elseif(CMAKE_CURRENT_LIST_DIR MATCHES "^(.*)/lib(64)?/(python3[.0-9]*)/(site|dist)-packages/samdeploy/cpp/cmake$")
  foreach(name ${CMAKE_MATCH_3} python3)
    if(NOT samdeploy_python AND EXISTS "${CMAKE_MATCH_1}/bin/${name}")
      set(samdeploy_python "${CMAKE_MATCH_1}/bin/${name}")
    endif()
  endforeach()
endif()
# Not through Python3_EXECUTABLE: CMake would keep it for the whole project that the library is built in.
if(NOT samdeploy_python)
  find_package(Python3 COMPONENTS Interpreter)
  set(samdeploy_python ${Python3_EXECUTABLE})
endif()
