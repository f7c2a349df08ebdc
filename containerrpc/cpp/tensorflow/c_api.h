// SPDX-License-Identifier: Apache-2.0
// What is used of TensorFlow's C API, looked up in a library that is loaded when the program runs.
#ifndef CLIPPER_TENSORFLOW_C_API_H_
#define CLIPPER_TENSORFLOW_C_API_H_

#include <cstddef>
#include <cstdint>

namespace clipper::internal {

struct TF_Graph;
struct TF_Operation;
struct TF_Session;
struct TF_SessionOptions;
struct TF_Status;
struct TF_Tensor;

struct TF_Buffer {
  const void* data;
  std::size_t length;
  void (*data_deallocator)(void* data, std::size_t length);
};

struct TF_Output {
  TF_Operation* oper;
  int index;
};

// A string within a tensor; its memory may be elsewhere.
struct TF_TString {
  alignas(8) char representation[24];
};

// Of TF_DataType and of TF_Code.
constexpr int TF_STRING = 7;
constexpr int TF_INVALID_ARGUMENT = 3, TF_RESOURCE_EXHAUSTED = 8;

#define CLIPPER_TENSORFLOW_C_API(F)                                                                                                         \
  F(const char*, TF_Version, ())                                                                                                            \
  F(TF_Status*, TF_NewStatus, ())                                                                                                           \
  F(void, TF_DeleteStatus, (TF_Status*))                                                                                                    \
  F(int, TF_GetCode, (const TF_Status*))                                                                                                    \
  F(const char*, TF_Message, (const TF_Status*))                                                                                            \
  F(TF_Buffer*, TF_NewBuffer, ())                                                                                                           \
  F(void, TF_DeleteBuffer, (TF_Buffer*))                                                                                                    \
  F(TF_Graph*, TF_NewGraph, ())                                                                                                             \
  F(void, TF_DeleteGraph, (TF_Graph*))                                                                                                      \
  F(TF_Operation*, TF_GraphOperationByName, (TF_Graph*, const char* name))                                                                  \
  F(TF_Operation*, TF_GraphNextOperation, (TF_Graph*, std::size_t* position))                                                               \
  F(const char*, TF_OperationOpType, (TF_Operation*))                                                                                       \
  F(TF_SessionOptions*, TF_NewSessionOptions, ())                                                                                           \
  F(void, TF_DeleteSessionOptions, (TF_SessionOptions*))                                                                                    \
  F(TF_Session*, TF_LoadSessionFromSavedModel,                                                                                              \
    (const TF_SessionOptions*, const TF_Buffer* run_options, const char* folder, const char* const* tags, int ntags, TF_Graph*,             \
     TF_Buffer* meta_graph, TF_Status*))                                                                                                    \
  F(void, TF_DeleteSession, (TF_Session*, TF_Status*))                                                                                      \
  F(void, TF_SessionRun,                                                                                                                    \
    (TF_Session*, const TF_Buffer* run_options, const TF_Output* inputs, TF_Tensor* const* input_values, int ninputs,                       \
     const TF_Output* outputs, TF_Tensor** output_values, int noutputs, const TF_Operation* const* targets, int ntargets,                   \
     TF_Buffer* run_metadata, TF_Status*))                                                                                                  \
  F(TF_Tensor*, TF_NewTensor,                                                                                                               \
    (int type, const std::int64_t* dims, int num_dims, void* data, std::size_t size, void (*release)(void*, std::size_t, void*), void* arg)) \
  F(TF_Tensor*, TF_AllocateTensor, (int type, const std::int64_t* dims, int num_dims, std::size_t size))                                    \
  F(void, TF_DeleteTensor, (TF_Tensor*))                                                                                                    \
  F(int, TF_TensorType, (const TF_Tensor*))                                                                                                 \
  F(int, TF_NumDims, (const TF_Tensor*))                                                                                                    \
  F(std::int64_t, TF_Dim, (const TF_Tensor*, int index))                                                                                    \
  F(void*, TF_TensorData, (const TF_Tensor*))                                                                                               \
  F(std::int64_t, TF_TensorElementCount, (const TF_Tensor*))                                                                                \
  F(void, TF_StringInit, (TF_TString*))                                                                                                     \
  F(void, TF_StringCopy, (TF_TString*, const char* data, std::size_t size))                                                                 \
  F(const char*, TF_StringGetDataPointer, (const TF_TString*))                                                                              \
  F(std::size_t, TF_StringGetSize, (const TF_TString*))                                                                                     \
  F(void, TF_StringDealloc, (TF_TString*))

// The functions of the library, which is never unloaded.
struct CApi {
  // Throws ModelError when it cannot be loaded.
  CApi();

#define CLIPPER_DECLARE(type, name, arguments) type(*name) arguments;
  CLIPPER_TENSORFLOW_C_API(CLIPPER_DECLARE)
#undef CLIPPER_DECLARE
};

}  // namespace clipper::internal

#endif  // CLIPPER_TENSORFLOW_C_API_H_
