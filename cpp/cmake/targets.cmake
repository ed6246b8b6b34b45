# The two shapes of target there are here: a plugin library, and the SWIG module.

# Where the wheels' libraries lie, seen from openmm_latent/ in site-packages. An editable install lies elsewhere; then
# `openmm_latent/plugin.py`, which imports openmm and torch first, makes the loader find them by their SONAMEs.
set(LATENT_NEIGHBOURS OpenMM.libs/lib OpenMM.libs/lib/plugins torch/lib)

function(latent_rpath target own up)
  set(paths ${own})
  foreach(folder ${LATENT_NEIGHBOURS})
    list(APPEND paths "$ORIGIN/${up}/${folder}")
  endforeach()
  set_target_properties(${target} PROPERTIES INSTALL_RPATH "${paths}" INSTALL_RPATH_USE_LINK_PATH OFF)
endfunction()

# latent_library(<name> FOLDERS <folder of cpp/>... LINK <target>...)
function(latent_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "FOLDERS;LINK")
  set(sources "")
  foreach(folder ${arg_FOLDERS})
    file(GLOB found CONFIGURE_DEPENDS ${folder}/*.cpp)
    list(APPEND sources ${found})
  endforeach()
  add_library(${name} SHARED ${sources})
  target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} include torch ${arg_FOLDERS})
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wno-restrict)  # GCC 12: false alarms in std::string
  # OpenMM opens plugins lazily: without -z now a missing symbol would end the process at its first call.
  target_link_options(${name} PRIVATE -Wl,-z,now -Wl,--no-undefined)
  target_link_libraries(${name} PRIVATE ${arg_LINK})
  latent_rpath(${name} "$ORIGIN" "../..")
  install(TARGETS ${name} LIBRARY DESTINATION lib)
endfunction()

function(latent_swig_module)
  set(interface ${CMAKE_CURRENT_SOURCE_DIR}/python/openmmlatent.i)
  set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/openmmlatent_wrap.cpp)
  file(GLOB headers CONFIGURE_DEPENDS include/openmm_latent/*.h python/*.i)
  add_custom_command(
    OUTPUT ${wrapper} ${CMAKE_CURRENT_BINARY_DIR}/openmmlatent.py
    # Warnings 325, 314 and 453 are about OpenMM's own interface files, not about ours.
    COMMAND ${LATENT_SWIG} -c++ -python -w325,314,453 -I${LATENT_OPENMM_ROOT}/include
            -I${CMAKE_CURRENT_SOURCE_DIR}/include -outdir ${CMAKE_CURRENT_BINARY_DIR} -o ${wrapper} ${interface}
    DEPENDS ${interface} ${headers}
    COMMENT "Wrapping the public API with SWIG")
  Python_add_library(_openmmlatent MODULE WITH_SOABI ${wrapper})
  target_include_directories(_openmmlatent PRIVATE include)
  target_include_directories(_openmmlatent SYSTEM PRIVATE ${LATENT_NUMPY_INCLUDE})
  # OpenMM's typemaps name the integrators of its plugins; which of them are needed is the linker's to find out.
  target_link_options(_openmmlatent PRIVATE -Wl,-z,now -Wl,--as-needed)
  target_link_libraries(_openmmlatent PRIVATE OpenMMLatent OpenMM::OpenMM OpenMM::Amoeba OpenMM::Drude OpenMM::RPMD)
  latent_rpath(_openmmlatent "$ORIGIN/lib" "..")
  install(TARGETS _openmmlatent LIBRARY DESTINATION .)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/openmmlatent.py DESTINATION .)
endfunction()
