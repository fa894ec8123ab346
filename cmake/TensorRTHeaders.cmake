# Find TensorRT's headers, of which its pip wheels have none: under TensorRT_ROOT, in a system package, or fetched.
#
# cornernet_find_tensorrt(INCLUDE REASON) sets INCLUDE to a folder with NvInferRuntime.h, or to "" and REASON to why not.
# It never fails for want of a network, as FetchContent would.

set(TensorRT_ROOT "" CACHE PATH "A TensorRT of one's own: the folder above its include/; else the environment's")
option(CORNERNET_FETCH_TENSORRT "Fetch TensorRT's public headers from github.com where there are none" ON)

set(CORNERNET_TENSORRT_OLDEST 10.12)
set(CORNERNET_TENSORRT_REPOSITORY https://github.com/NVIDIA/TensorRT)
# Tag v11.1 of that repository. A tag can be moved, a commit cannot.
set(CORNERNET_TENSORRT_COMMIT 82d1dca801c8318a5605399d5240780d0679e4e1)

function(cornernet_find_tensorrt include_variable reason_variable)
  set(${include_variable} "" PARENT_SCOPE)
  set(reason "no NvInferRuntime.h of TensorRT ${CORNERNET_TENSORRT_OLDEST} or later")
  set(root "${TensorRT_ROOT}")
  if(NOT root)  # read anew each time: a variable set after the first configuration counts
    set(root "$ENV{TensorRT_ROOT}")
  endif()
  if(root)
    find_path(include NvInferRuntime.h PATHS "${root}" PATH_SUFFIXES include NO_DEFAULT_PATH NO_CACHE)
    if(NOT include)
      message(FATAL_ERROR "TensorRT_ROOT is '${root}': expected include/NvInferRuntime.h there, found none")
    endif()
  else()
    find_path(include NvInferRuntime.h PATH_SUFFIXES include x86_64-linux-gnu aarch64-linux-gnu
      PATHS /usr /usr/local /usr/local/tensorrt /opt/tensorrt NO_CACHE)
  endif()
  if(include)
    string(REGEX REPLACE "/$" "" include "${include}")
    cornernet_tensorrt_version("${include}" version)
    if(version VERSION_LESS CORNERNET_TENSORRT_OLDEST)
      set(reason "${include} has TensorRT ${version}, expected ${CORNERNET_TENSORRT_OLDEST} or later")
      unset(include)
    endif()
  endif()
  if(NOT include AND NOT root AND CORNERNET_FETCH_TENSORRT)
    cornernet_fetch_tensorrt(include)
    if(NOT include)
      string(APPEND reason ", and none could be fetched from ${CORNERNET_TENSORRT_REPOSITORY}")
    endif()
  endif()
  if(include)
    cornernet_tensorrt_version("${include}" version)
    message(STATUS "TensorRT plugin: headers of TensorRT ${version} in ${include}")
    set(${include_variable} "${include}" PARENT_SCOPE)
  endif()
  set(${reason_variable} "${reason}" PARENT_SCOPE)
endfunction()

function(cornernet_tensorrt_version include version_variable)
  file(STRINGS "${include}/NvInferVersion.h" lines REGEX "^#define (NV_TENSORRT|TRT)_(MAJOR|MINOR)[A-Z_]* +[0-9]+")
  set(parts 0 0)
  foreach(line IN LISTS lines)
    if(line MATCHES "_MAJOR[A-Z_]* +([0-9]+)")
      list(POP_FRONT parts)
      list(PREPEND parts ${CMAKE_MATCH_1})
    elseif(line MATCHES "_MINOR[A-Z_]* +([0-9]+)")
      list(POP_BACK parts)
      list(APPEND parts ${CMAKE_MATCH_1})
    endif()
  endforeach()
  list(JOIN parts . version)
  set(${version_variable} ${version} PARENT_SCOPE)
endfunction()

# Fetch the folder include/ alone, some 2 MB, once for each build folder.
function(cornernet_fetch_tensorrt include_variable)
  set(folder ${CMAKE_BINARY_DIR}/_deps/tensorrt-${CORNERNET_TENSORRT_COMMIT})
  find_program(CORNERNET_GIT git DOC "Fetches TensorRT's headers")
  if(NOT EXISTS ${folder}/include/NvInferRuntime.h AND CORNERNET_GIT)
    message(STATUS "TensorRT plugin: fetching the headers from ${CORNERNET_TENSORRT_REPOSITORY}")
    file(REMOVE_RECURSE ${folder})
    file(MAKE_DIRECTORY ${folder})
    set(git ${CMAKE_COMMAND} -E env GIT_TERMINAL_PROMPT=0 ${CORNERNET_GIT} -C ${folder})
    foreach(step IN ITEMS
        "init;--quiet"
        "remote;add;origin;${CORNERNET_TENSORRT_REPOSITORY}"
        "sparse-checkout;set;include"
        "fetch;--quiet;--depth=1;--filter=blob:none;origin;${CORNERNET_TENSORRT_COMMIT}"
        "checkout;--quiet;FETCH_HEAD")
      execute_process(COMMAND ${git} ${step} TIMEOUT 120 RESULT_VARIABLE result OUTPUT_QUIET ERROR_QUIET)
      if(NOT result EQUAL 0)
        file(REMOVE_RECURSE ${folder})
        break()
      endif()
    endforeach()
  endif()
  set(${include_variable} "" PARENT_SCOPE)
  if(EXISTS ${folder}/include/NvInferRuntime.h)
    set(${include_variable} ${folder}/include PARENT_SCOPE)
  endif()
endfunction()
