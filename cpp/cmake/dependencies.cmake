# Imported targets for the wheels' libraries, and why OpenCL or CUDA is left out (LATENT_SKIP_*; empty when built).
# Their headers are SYSTEM: warnings in them are not ours to mend.

function(latent_import name library)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "INCLUDES")
  if(NOT EXISTS "${library}")
    message(FATAL_ERROR "${library} is missing; are the openmm and torch packages complete?")
  endif()
  add_library(${name} SHARED IMPORTED)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION "${library}")
  target_include_directories(${name} SYSTEM INTERFACE ${arg_INCLUDES})
endfunction()

set(LATENT_PLUGINS ${LATENT_OPENMM_ROOT}/lib/plugins)
latent_import(OpenMM::OpenMM ${LATENT_OPENMM_ROOT}/lib/libOpenMM.so INCLUDES ${LATENT_OPENMM_ROOT}/include)
foreach(plugin Amoeba Drude RPMD)
  latent_import(OpenMM::${plugin} ${LATENT_OPENMM_ROOT}/lib/libOpenMM${plugin}.so)
endforeach()

latent_import(Torch::c10 ${LATENT_TORCH_ROOT}/lib/libc10.so)
latent_import(Torch::cpu ${LATENT_TORCH_ROOT}/lib/libtorch_cpu.so)
latent_import(Torch::Torch ${LATENT_TORCH_ROOT}/lib/libtorch.so
              INCLUDES ${LATENT_TORCH_ROOT}/include ${LATENT_TORCH_ROOT}/include/torch/csrc/api/include)
# torch registers its operators from static initialisers: nothing of it may be dropped for looking unused.
target_link_options(Torch::Torch INTERFACE -Wl,--no-as-needed)
target_link_libraries(Torch::Torch INTERFACE Torch::cpu Torch::c10)

# ---- OpenCL: the C headers, and the library that OpenMM's plugin itself needs ----------------------------------------
set(LATENT_SKIP_OPENCL "")
find_path(LATENT_CL_INCLUDE CL/cl.h)
find_library(LATENT_CL_LIBRARY NAMES OpenCL libOpenCL.so.1)
if(NOT EXISTS ${LATENT_PLUGINS}/libOpenMMOpenCL.so)
  set(LATENT_SKIP_OPENCL "the installed openmm has no OpenCL platform")
elseif(NOT LATENT_CL_INCLUDE)
  set(LATENT_SKIP_OPENCL "the header CL/cl.h was not found (Debian package opencl-headers)")
elseif(NOT LATENT_CL_LIBRARY)
  set(LATENT_SKIP_OPENCL "libOpenCL was not found (Debian package ocl-icd-opencl-dev)")
else()
  latent_import(OpenMM::OpenCL ${LATENT_PLUGINS}/libOpenMMOpenCL.so INCLUDES ${LATENT_CL_INCLUDE})
  target_compile_definitions(OpenMM::OpenCL INTERFACE CL_TARGET_OPENCL_VERSION=300)  # the headers ask for a choice
  target_link_libraries(OpenMM::OpenCL INTERFACE ${LATENT_CL_LIBRARY})
endif()

# ---- CUDA: the toolkit's headers are enough -------------------------------------------------------------------------
set(LATENT_SKIP_CUDA "")
find_package(CUDAToolkit QUIET)
if(NOT CUDAToolkit_FOUND)
  set(LATENT_SKIP_CUDA "no CUDA toolkit was found")
elseif(NOT EXISTS ${LATENT_OPENMM_ROOT}/include/openmm/cuda/CudaContext.h)
  set(LATENT_SKIP_CUDA "the installed openmm has no CUDA headers")
endif()
