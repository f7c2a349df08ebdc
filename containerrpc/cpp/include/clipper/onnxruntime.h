// SPDX-License-Identifier: Apache-2.0
// ONNX Runtime for containers: sessions of its C API, whose tensors are those of a batch and of a result. It is for
// programs that link with ONNX Runtime; the runtime of containers itself does not need it.
#ifndef CLIPPER_ONNXRUNTIME_H_
#define CLIPPER_ONNXRUNTIME_H_

#include <onnxruntime_c_api.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "clipper/tensor.h"

namespace clipper::onnxruntime {

// "1.23.2"
inline std::string Version() { return OrtGetApiBase()->GetVersionString(); }

// The functions of the library; throws when it is older than the headers.
inline const OrtApi& Api() {
  static const OrtApi* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (api == nullptr) throw std::runtime_error("ONNX Runtime is " + Version() + ", and the program needs 1." + std::to_string(ORT_API_VERSION));
  return *api;
}

struct Release {
  void operator()(OrtEnv* p) const { Api().ReleaseEnv(p); }
  void operator()(OrtMemoryInfo* p) const { Api().ReleaseMemoryInfo(p); }
  void operator()(OrtSession* p) const { Api().ReleaseSession(p); }
  void operator()(OrtSessionOptions* p) const { Api().ReleaseSessionOptions(p); }
  void operator()(OrtStatus* p) const { Api().ReleaseStatus(p); }
  void operator()(OrtTensorTypeAndShapeInfo* p) const { Api().ReleaseTensorTypeAndShapeInfo(p); }
  void operator()(OrtTypeInfo* p) const { Api().ReleaseTypeInfo(p); }
  void operator()(OrtValue* p) const { Api().ReleaseValue(p); }
};
template <typename T>
using Owned = std::unique_ptr<T, Release>;

// Throws what a call says that went wrong.
inline void Check(OrtStatus* status) {
  if (Owned<OrtStatus> failed(status); failed) throw std::runtime_error(Api().GetErrorMessage(failed.get()));
}

// Calls a function of the C API whose last argument is where it puts what it has made.
template <typename T, typename... Parameters, typename... Arguments>
Owned<T> Make(OrtStatus* (*function)(Parameters...), Arguments... arguments) {
  T* made = nullptr;
  Check(function(arguments..., &made));
  return Owned<T>(made);
}

// The type of ONNX's numbers; kAny for what no tensor of a batch has.
inline DataType TypeOf(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL: return DataType::kBool;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8: return DataType::kUint8;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16: return DataType::kUint16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32: return DataType::kUint32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64: return DataType::kUint64;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8: return DataType::kInt8;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16: return DataType::kInt16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return DataType::kInt32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return DataType::kInt64;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return DataType::kFloat16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16: return DataType::kBfloat16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return DataType::kFloat32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: return DataType::kFloat64;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING: return DataType::kString;
    default: return DataType::kAny;
  }
}

// A tensor's type and shape: of a value, or of an input or output of a model, where -1 is any length. One of another kind
// (a sequence, a map) has the type kAny and no dimensions.
struct TensorInfo {
  std::string name;
  ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::vector<std::int64_t> dims;

  TensorInfo(std::string name, const OrtTensorTypeAndShapeInfo* info) : name(std::move(name)) {
    if (info == nullptr) return;
    std::size_t rank = 0;
    Check(Api().GetTensorElementType(info, &element));
    Check(Api().GetDimensionsCount(info, &rank));
    dims.resize(rank);
    Check(Api().GetDimensions(info, dims.data(), rank));
  }
  DataType type() const { return TypeOf(element); }
};

// A loaded model. Run may be called by several threads at once.
class Session {
 public:
  // Loads a model, to be computed by the CPU. Throws what ONNX Runtime finds wrong with it.
  explicit Session(const std::string& path) {
    // What ONNX Runtime has to say it returns too, so its own log would say it twice.
    env_ = Make<OrtEnv>(Api().CreateEnv, ORT_LOGGING_LEVEL_FATAL, "clipper");
    cpu_ = Make<OrtMemoryInfo>(Api().CreateCpuMemoryInfo, OrtArenaAllocator, OrtMemTypeDefault);
    Owned<OrtSessionOptions> options = Make<OrtSessionOptions>(Api().CreateSessionOptions);
    session_ = Make<OrtSession>(Api().CreateSession, env_.get(), path.c_str(), options.get());
    Check(Api().GetAllocatorWithDefaultOptions(&allocator_));
    inputs_ = Infos(Api().SessionGetInputCount, Api().SessionGetInputName, Api().SessionGetInputTypeInfo);
    outputs_ = Infos(Api().SessionGetOutputCount, Api().SessionGetOutputName, Api().SessionGetOutputTypeInfo);
  }

  // What the model takes and gives, the batch dimension included.
  const std::vector<TensorInfo>& inputs() const { return inputs_; }
  const std::vector<TensorInfo>& outputs() const { return outputs_; }

  // Predicts a batch that has the model's inputs in their order, and adds the model's outputs to the result. Numbers are
  // read where they were received and sent from where ONNX Runtime has put them; strings are copied.
  void Run(const Batch& batch, Result& result) const {
    std::vector<Owned<OrtValue>> taken;
    for (const Tensor& tensor : batch) taken.push_back(Value(tensor, inputs_.at(taken.size()).element));
    std::vector<OrtValue*> given(outputs_.size(), nullptr);
    Check(Api().Run(session_.get(), nullptr, Names(inputs_).data(), Pointers(taken).data(), taken.size(), Names(outputs_).data(),
                    given.size(), given.data()));
    std::vector<Owned<OrtValue>> outputs(given.begin(), given.end());
    for (std::size_t i = 0; i < outputs.size(); i++) Add(std::move(outputs[i]), outputs_[i].name, batch, result);
  }

 private:
  template <typename Count, typename Name, typename Type>
  std::vector<TensorInfo> Infos(Count count, Name name, Type type) const {
    std::size_t size = 0;
    Check(count(session_.get(), &size));
    std::vector<TensorInfo> infos;
    for (std::size_t i = 0; i < size; i++) {
      char* text = nullptr;
      Check(name(session_.get(), i, allocator_, &text));
      std::string copy = text;
      Check(Api().AllocatorFree(allocator_, text));
      Owned<OrtTypeInfo> described = Make<OrtTypeInfo>(type, session_.get(), i);
      const OrtTensorTypeAndShapeInfo* tensor = nullptr;
      Check(Api().CastTypeInfoToTensorInfo(described.get(), &tensor));
      infos.emplace_back(std::move(copy), tensor);
    }
    return infos;
  }

  Owned<OrtValue> Value(const Tensor& tensor, ONNXTensorElementDataType element) const {
    tensor.shape();  // rows of different shapes are an error of the batch
    Span<const std::int64_t> dims = tensor.dims();
    if (element != ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING) {
      return Make<OrtValue>(Api().CreateTensorWithDataAsOrtValue, cpu_.get(), const_cast<void*>(tensor.raw()), tensor.raw_bytes(),
                            dims.data(), dims.size(), element);
    }
    Owned<OrtValue> value = Make<OrtValue>(Api().CreateTensorAsOrtValue, allocator_, dims.data(), dims.size(), element);
    Span<const std::string_view> texts = tensor.data<std::string_view>();
    for (std::size_t i = 0; i < texts.size(); i++) {
      char* buffer = nullptr;
      Check(Api().GetResizedStringTensorElementBuffer(value.get(), i, texts[i].size(), &buffer));
      std::memcpy(buffer, texts[i].data(), texts[i].size());
    }
    return value;
  }

  static void Add(Owned<OrtValue> value, const std::string& name, const Batch& batch, Result& result) {
    const TensorInfo info(name, Make<OrtTensorTypeAndShapeInfo>(Api().GetTensorTypeAndShape, value.get()).get());
    if (info.type() == DataType::kString && !info.dims.empty()) {
      result.Add(Strings(value.get(), info.dims), {info.dims.begin() + 1, info.dims.end()}, name);
      return;
    }
    void* data = nullptr;
    Check(Api().GetTensorMutableData(value.get(), &data));
    // A model may give an input back as it is, and the received bytes do not last as long as the answer: they are copied.
    bool received = false;
    for (const Tensor& tensor : batch) received = received || data == tensor.raw();
    result.Add(info.type(), info.dims, data, received ? nullptr : std::shared_ptr<OrtValue>(std::move(value)), name);
  }

  static std::vector<std::string> Strings(const OrtValue* value, const std::vector<std::int64_t>& dims) {
    std::vector<std::string> strings(std::accumulate(dims.begin(), dims.end(), std::size_t{1}, std::multiplies<>()));
    for (std::size_t i = 0; i < strings.size(); i++) {
      std::size_t bytes = 0;
      Check(Api().GetStringTensorElementLength(value, i, &bytes));
      strings[i].resize(bytes);
      Check(Api().GetStringTensorElement(value, bytes, i, strings[i].data()));
    }
    return strings;
  }

  static std::vector<const char*> Names(const std::vector<TensorInfo>& infos) {
    std::vector<const char*> names;
    for (const TensorInfo& info : infos) names.push_back(info.name.c_str());
    return names;
  }
  static std::vector<const OrtValue*> Pointers(const std::vector<Owned<OrtValue>>& values) {
    std::vector<const OrtValue*> pointers;
    for (const Owned<OrtValue>& value : values) pointers.push_back(value.get());
    return pointers;
  }

  Owned<OrtEnv> env_;
  Owned<OrtMemoryInfo> cpu_;
  Owned<OrtSession> session_;
  OrtAllocator* allocator_ = nullptr;  // the library's own
  std::vector<TensorInfo> inputs_, outputs_;
};

}  // namespace clipper::onnxruntime

#endif  // CLIPPER_ONNXRUNTIME_H_
