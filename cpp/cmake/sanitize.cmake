# samdeploy_sanitize(TARGET...): build and link with the sanitizers that SAMDEPLOY_SANITIZE names.
# -g1: the lines of a sanitizer's report, at a sixth less of the compiler's time than -g.
function(samdeploy_sanitize)
  if(SAMDEPLOY_SANITIZE STREQUAL "address")
    set(flags -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1 -O1)
  elseif(SAMDEPLOY_SANITIZE STREQUAL "thread")
    set(flags -fsanitize=thread -g1 -O1)
  elseif(NOT SAMDEPLOY_SANITIZE STREQUAL "")
    message(FATAL_ERROR "SAMDEPLOY_SANITIZE is '${SAMDEPLOY_SANITIZE}'; expected address, thread or nothing")
  else()
    return()
  endif()
  if(SAMDEPLOY_BUILD_FUZZERS AND CMAKE_CXX_COMPILER_ID MATCHES Clang)
    list(APPEND flags -fsanitize=fuzzer-no-link)  # coverage, which libFuzzer is led by
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND flags -Wno-clobbered)  # GCC says so of its own std::string beside libjpeg's setjmp, at -O1 alone
  endif()
  foreach(target ${ARGN})
    target_compile_options(${target} PUBLIC ${flags})
    target_compile_definitions(${target} PRIVATE SAMDEPLOY_SANITIZED)
    target_link_options(${target} PUBLIC ${flags})
  endforeach()
endfunction()
