// SPDX-License-Identifier: Apache-2.0
#include "clipper/tensorflow.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <dlfcn.h>

#include "../src/errors.h"
#include "c_api.h"
#include "signature.h"

namespace clipper {

using namespace internal;

namespace {

// TF_DataType by DataType; kAny and kBytes stand for nothing.
constexpr std::array<int, 15> kTypes = {0, 10, 4, 17, 22, 23, 6, 5, 3, 9, 19, 14, 1, 2, TF_STRING};

// The type in Clipper; kAny when there is none. Text and byte strings are one type in TensorFlow, of which the name says what it is.
DataType FromTensorFlow(int type, const std::string& name) {
  const std::string_view end = "_bytes";
  if (type == TF_STRING && name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0) return DataType::kBytes;
  const auto found = std::find(kTypes.begin() + 1, kTypes.end(), type);
  return found == kTypes.end() ? DataType::kAny : static_cast<DataType>(found - kTypes.begin());
}

std::string Library() {
  const char* set = std::getenv("TENSORFLOW_LIBRARY");
  const std::string place = set == nullptr ? "" : set;
  if (!place.empty() && !std::filesystem::is_directory(place)) return place;
  return std::filesystem::path(place) / "libtensorflow_cc.so.2";
}

const CApi& Api() {
  static const CApi api;
  return api;
}

// Frees what the C API has made.
struct Deleter {
  void operator()(TF_Status* status) const { Api().TF_DeleteStatus(status); }
  void operator()(TF_Buffer* buffer) const { Api().TF_DeleteBuffer(buffer); }
  void operator()(TF_Graph* graph) const { Api().TF_DeleteGraph(graph); }
  void operator()(TF_SessionOptions* options) const { Api().TF_DeleteSessionOptions(options); }
  void operator()(TF_Tensor* tensor) const { Api().TF_DeleteTensor(tensor); }
  void operator()(TF_Session* session) const {
    const std::unique_ptr<TF_Status, Deleter> ignored(Api().TF_NewStatus());
    Api().TF_DeleteSession(session, ignored.get());
  }
};
template <typename T>
using Owned = std::unique_ptr<T, Deleter>;

void Check(const TF_Status* status) {
  const int code = Api().TF_GetCode(status);
  if (code == 0) return;
  const std::string message = Api().TF_Message(status);
  if (code == TF_INVALID_ARGUMENT) throw InputError(message);
  if (code == TF_RESOURCE_EXHAUSTED) throw std::system_error(std::make_error_code(std::errc::not_enough_memory), message);
  throw std::runtime_error(message);
}

Owned<TF_Tensor> Made(TF_Tensor* tensor) {
  if (tensor == nullptr) throw std::bad_alloc();
  return Owned<TF_Tensor>(tensor);
}

// TensorFlow may keep a tensor longer than the batch lives, in an output that is a part of the input or in a variable. So a tensor
// shares the memory of the batch or has its own.
Owned<TF_Tensor> NewTensor(const Tensor& input, int type) {
  const CApi& api = Api();
  (void)input.shape();  // an error when the rows differ in shape
  const Span<const std::int64_t> dims = input.dims();
  const int num_dims = static_cast<int>(dims.size());
  if (type == TF_STRING) {
    const Span<const std::string_view> values = input.data<std::string_view>();
    auto* strings = new TF_TString[values.size()];
    for (std::size_t i = 0; i < values.size(); i++) {
      api.TF_StringInit(&strings[i]);
      api.TF_StringCopy(&strings[i], values[i].data(), values[i].size());
    }
    return Made(api.TF_NewTensor(type, dims.data(), num_dims, strings, values.size() * sizeof(TF_TString), [](void* data, std::size_t size, void*) {
      auto* released = static_cast<TF_TString*>(data);
      for (std::size_t i = 0; i < size / sizeof(TF_TString); i++) Api().TF_StringDealloc(&released[i]);
      delete[] released;
    }, nullptr));
  }
  if (input.owner() != nullptr) {
    auto* owner = new std::shared_ptr<const void>(input.owner());
    return Made(api.TF_NewTensor(type, dims.data(), num_dims, const_cast<void*>(input.raw()), input.raw_bytes(), [](void*, std::size_t, void* kept) {
      delete static_cast<std::shared_ptr<const void>*>(kept);
    }, owner));
  }
  Owned<TF_Tensor> tensor = Made(api.TF_AllocateTensor(type, dims.data(), num_dims, input.raw_bytes()));
  if (input.raw_bytes() > 0) std::memcpy(api.TF_TensorData(tensor.get()), input.raw(), input.raw_bytes());
  return tensor;
}

void AddOutput(std::shared_ptr<TF_Tensor> tensor, const std::string& name, Result& result) {
  const CApi& api = Api();
  Shape dims;
  for (int i = 0; i < api.TF_NumDims(tensor.get()); i++) dims.push_back(api.TF_Dim(tensor.get(), i));
  const void* data = api.TF_TensorData(tensor.get());
  const DataType type = FromTensorFlow(api.TF_TensorType(tensor.get()), name);
  if (type != DataType::kString && type != DataType::kBytes) return result.Add(type, dims, data, std::move(tensor), name);
  std::vector<std::string> values;
  for (std::int64_t i = 0; i < api.TF_TensorElementCount(tensor.get()); i++) {
    const TF_TString* string = static_cast<const TF_TString*>(data) + i;
    values.emplace_back(api.TF_StringGetDataPointer(string), api.TF_StringGetSize(string));
  }
  if (dims.empty()) throw BadOutput("the output '" + name + "' is a scalar");
  const Shape shape(dims.begin() + 1, dims.end());
  if (type == DataType::kBytes) return result.AddBytes(std::move(values), shape, name);
  result.Add(std::move(values), shape, name);
}

// Without its variables TensorFlow loads a model all the same, and then each batch fails.
void CheckVariables(TF_Graph* graph, const std::string& path) {
  if (std::filesystem::exists(path + "/variables/variables.index")) return;
  std::size_t position = 0;
  while (TF_Operation* operation = Api().TF_GraphNextOperation(graph, &position)) {
    const std::string_view kind = Api().TF_OperationOpType(operation);
    if (kind == "VarHandleOp" || kind == "VariableV2") throw ModelError("it has variables, and no file variables/variables.index");
  }
}

// What a row of a tensor of the signature looks like.
Spec RowOf(const std::string& name, const TensorInfo& info) {
  const DataType type = FromTensorFlow(info.type, name);
  if (info.tensor.empty()) throw ModelError("'" + name + "' of the signature is a sparse or ragged tensor; a container has dense ones");
  if (type == DataType::kAny) throw ModelError("'" + name + "' of the signature is of TensorFlow's type " + std::to_string(info.type) + ", which a container has not");
  if (info.unknown_rank) return {type, {}, name, true};
  if (info.shape.empty() || (info.shape[0] != -1 && info.shape[0] != 1)) {
    throw ModelError("'" + name + "' of the signature has no first dimension that is the batch, free (None) or 1");
  }
  return {type, {info.shape.begin() + 1, info.shape.end()}, name};
}

}  // namespace

internal::CApi::CApi() {
  const std::string library = Library();
  // gRPC brings another version of protobuf and abseil than TensorFlow has, under the same names. TensorFlow's must be found neither by
  // others (RTLD_LOCAL) nor replaced by theirs (RTLD_DEEPBIND).
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  const char* const hint = "; install TensorFlow (pip install tensorflow-cpu) and set TENSORFLOW_LIBRARY to the folder that has "
                           "libtensorflow_cc.so.2, which tensorflow.sysconfig.get_lib() names";
  if (handle == nullptr) throw ModelError(std::string("TensorFlow cannot be loaded: ") + dlerror() + hint);
#define CLIPPER_LOOK_UP(type, name, arguments) \
  if ((name = reinterpret_cast<decltype(name)>(dlsym(handle, #name))) == nullptr) throw ModelError(library + " has no " #name + hint);
  CLIPPER_TENSORFLOW_C_API(CLIPPER_LOOK_UP)
#undef CLIPPER_LOOK_UP
}

struct SavedModel::Session {
  Owned<TF_Graph> graph{Api().TF_NewGraph()};
  Owned<TF_Session> session;  // ends before its graph
  std::vector<TF_Output> inputs, outputs;
  std::vector<int> input_types;
};

SavedModel::SavedModel(const std::string& path, const std::string& signature) : session_(std::make_unique<Session>()) {
  const CApi& api = Api();
  const Owned<TF_Status> status(api.TF_NewStatus());
  const Owned<TF_SessionOptions> options(api.TF_NewSessionOptions());
  const Owned<TF_Buffer> meta_graph(api.TF_NewBuffer());
  const char* const tag = "serve";
  session_->session.reset(
      api.TF_LoadSessionFromSavedModel(options.get(), nullptr, path.c_str(), &tag, 1, session_->graph.get(), meta_graph.get(), status.get()));
  Check(status.get());
  CheckVariables(session_->graph.get(), path);

  const std::map<std::string, Signature> signatures = ReadSignatures({static_cast<const char*>(meta_graph->data), meta_graph->length});
  const auto found = signatures.find(signature);
  if (found == signatures.end() || found->second.inputs.empty() || found->second.outputs.empty()) {
    std::string names;
    for (const auto& [name, known] : signatures) {
      if (!known.inputs.empty() && !known.outputs.empty()) names += (names.empty() ? "" : ", ") + name;
    }
    throw ModelError("it has no signature '" + signature + "' with inputs and outputs; it has " + (names.empty() ? "none" : names));
  }
  const auto add = [&](const std::map<std::string, TensorInfo>& tensors, std::vector<Spec>& specs, std::vector<TF_Output>& places) {
    for (const auto& [name, info] : tensors) {
      specs.push_back(RowOf(name, info));
      const std::size_t colon = info.tensor.rfind(':');
      TF_Operation* operation = api.TF_GraphOperationByName(session_->graph.get(), info.tensor.substr(0, colon).c_str());
      if (operation == nullptr) throw ModelError("its graph has no tensor '" + info.tensor + "', which the signature names");
      places.push_back({operation, colon == std::string::npos ? 0 : std::atoi(info.tensor.c_str() + colon + 1)});
    }
  };
  add(found->second.inputs, inputs_, session_->inputs);
  add(found->second.outputs, outputs_, session_->outputs);
  for (const auto& [name, info] : found->second.inputs) {
    session_->input_types.push_back(info.type);
    if (!info.unknown_rank && info.shape[0] == 1) max_batch_rows_ = 1;
  }
}

SavedModel::~SavedModel() = default;

std::string SavedModel::version() const { return Api().TF_Version(); }

void SavedModel::Run(const Batch& batch, Result& result) const {
  const CApi& api = Api();
  const Session& s = *session_;
  if (batch.size() != s.inputs.size()) {
    throw InputError("the batch has " + std::to_string(batch.size()) + " inputs; the model takes " + std::to_string(s.inputs.size()));
  }
  std::vector<Owned<TF_Tensor>> inputs;
  std::vector<TF_Tensor*> taken, given(s.outputs.size());
  for (std::size_t i = 0; i < batch.size(); i++) {
    inputs.push_back(NewTensor(batch.input(i), s.input_types[i]));
    taken.push_back(inputs.back().get());
  }
  const Owned<TF_Status> status(api.TF_NewStatus());
  api.TF_SessionRun(s.session.get(), nullptr, s.inputs.data(), taken.data(), static_cast<int>(taken.size()), s.outputs.data(), given.data(),
                    static_cast<int>(given.size()), nullptr, 0, nullptr, status.get());
  std::vector<std::shared_ptr<TF_Tensor>> outputs;
  for (TF_Tensor* tensor : given) outputs.emplace_back(tensor, [](TF_Tensor* held) { if (held != nullptr) Deleter()(held); });
  Check(status.get());
  for (std::size_t i = 0; i < outputs.size(); i++) AddOutput(std::move(outputs[i]), outputs_[i].name, result);
}

}  // namespace clipper
