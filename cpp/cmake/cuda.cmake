# Links the CUDA library without a driver and, with a CPU torch or an openmm without its CUDA package, without the
# libraries that it will find where it runs. A stub carries the SONAME; the real library answers at load time, and where
# there is none, loading fails with a sentence that `openmm_latent.plugin` keeps.

file(CONFIGURE OUTPUT stub.cpp CONTENT "// empty on purpose\n")

# latent_stub(<target> <file name that becomes the SONAME>)
function(latent_stub target soname)
  add_library(${target} SHARED ${CMAKE_CURRENT_BINARY_DIR}/stub.cpp)
  string(REGEX REPLACE "^lib(.*)\\.so.*$" "\\1" stem ${soname})
  string(REGEX REPLACE "^lib[^.]*\\.so\\.?" "" version ${soname})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${stem} LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/stubs)
  if(version)
    set_target_properties(${target} PROPERTIES SOVERSION ${version})
  endif()
endfunction()

latent_stub(latent_driver_stub libcuda.so.1)

if(EXISTS ${LATENT_PLUGINS}/libOpenMMCUDA.so)
  latent_import(OpenMM::CUDA ${LATENT_PLUGINS}/libOpenMMCUDA.so)
else()
  latent_stub(latent_openmm_cuda_stub libOpenMMCUDA.so)
  add_library(OpenMM::CUDA ALIAS latent_openmm_cuda_stub)
endif()

add_library(latent_torch_cuda INTERFACE)
add_library(Torch::CUDA ALIAS latent_torch_cuda)
target_include_directories(latent_torch_cuda SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
if(EXISTS ${LATENT_TORCH_ROOT}/lib/libtorch_cuda.so)
  latent_import(Torch::torch_cuda ${LATENT_TORCH_ROOT}/lib/libtorch_cuda.so)
  latent_import(Torch::c10_cuda ${LATENT_TORCH_ROOT}/lib/libc10_cuda.so)
  target_link_libraries(latent_torch_cuda INTERFACE Torch::torch_cuda Torch::c10_cuda)
else()
  latent_stub(latent_torch_cuda_stub libtorch_cuda.so)
  latent_stub(latent_c10_cuda_stub libc10_cuda.so)
  target_link_libraries(latent_torch_cuda INTERFACE latent_torch_cuda_stub latent_c10_cuda_stub)
  # The CPU wheel lacks the header that says how libc10_cuda was configured; this is all that it would say.
  target_compile_definitions(latent_torch_cuda INTERFACE C10_CUDA_NO_CMAKE_CONFIGURE_FILE C10_CUDA_BUILD_SHARED_LIBS)
endif()
target_link_libraries(latent_torch_cuda INTERFACE latent_driver_stub)
# The stubs are empty, so what they stand for stays open until the library is loaded.
target_link_options(latent_torch_cuda INTERFACE -Wl,--unresolved-symbols=ignore-all)
