# SPDX-License-Identifier: Apache-2.0
# C++ from protos. Generated code must match its runtime exactly, so it is made where it is built, with the
# protoc and the plugin that belong to the installed libraries.
find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(GRPCPP REQUIRED IMPORTED_TARGET grpc++)
find_program(PROTOC protoc REQUIRED)

set(CLIPPER_PROTO_ROOT "${CMAKE_CURRENT_LIST_DIR}")

# clipper_proto_library(TARGET ROOT [STUBS] NAME...): a library of the protos ROOT/NAME.proto; STUBS adds the
# services of gRPC. Headers are made below <binary directory>/proto.
function(clipper_proto_library TARGET ROOT)
  cmake_parse_arguments(PARSE_ARGV 2 PROTO STUBS "" "")
  set(PROTOS ${PROTO_UNPARSED_ARGUMENTS})
  set(FILES ${PROTOS})
  list(TRANSFORM FILES PREPEND "${ROOT}/")
  list(TRANSFORM FILES APPEND ".proto")
  set(OUT "${CMAKE_CURRENT_BINARY_DIR}/proto")
  file(MAKE_DIRECTORY "${OUT}")
  set(MADE)
  foreach(NAME ${PROTOS})
    set(OUTPUTS "${OUT}/${NAME}.pb.cc" "${OUT}/${NAME}.pb.h")
    set(GRPC_ARGUMENTS)
    if(PROTO_STUBS AND NAME MATCHES "_service$")
      find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
      list(APPEND OUTPUTS "${OUT}/${NAME}.grpc.pb.cc" "${OUT}/${NAME}.grpc.pb.h")
      set(GRPC_ARGUMENTS "--grpc_out=${OUT}" "--plugin=protoc-gen-grpc=${GRPC_CPP_PLUGIN}")
    endif()
    add_custom_command(
      OUTPUT ${OUTPUTS}
      COMMAND "${PROTOC}" "-I${ROOT}" "--cpp_out=${OUT}" ${GRPC_ARGUMENTS} "${NAME}.proto"
      # A proto may import any other.
      DEPENDS ${FILES}
      VERBATIM)
    list(APPEND MADE ${OUTPUTS})
  endforeach()
  add_library(${TARGET} STATIC ${MADE})
  add_library(Clipper::${TARGET} ALIAS ${TARGET})
  target_compile_features(${TARGET} PUBLIC cxx_std_17)
  set_target_properties(${TARGET} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_include_directories(${TARGET} SYSTEM PUBLIC "$<BUILD_INTERFACE:${OUT}>" "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
  target_link_libraries(${TARGET} PUBLIC protobuf::libprotobuf Threads::Threads)
  if(PROTO_STUBS)
    target_link_libraries(${TARGET} PUBLIC PkgConfig::GRPCPP)
    # To read the headers of gRPC takes longer than to compile what follows them.
    target_precompile_headers(${TARGET} PRIVATE <grpcpp/grpcpp.h>)
  endif()
endfunction()
