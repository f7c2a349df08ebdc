// SPDX-License-Identifier: Apache-2.0
// Serves an ONNX model with ONNX Runtime.
#include <clipper/container.h>
#include <clipper/onnxruntime.h>

struct Onnx : clipper::Model {
  static constexpr char kExpects[] = "an ONNX model of tensors that this version of ONNX Runtime can read";

  explicit Onnx(const std::string& path) : session(path) {
    inputs = Rows(session.inputs());
    outputs = Rows(session.outputs());
    for (const auto& input : session.inputs()) max_batch_rows |= input.dims[0] == 1;
    properties = {{"framework", "onnxruntime " + clipper::onnxruntime::Version()}};
  }

  static std::vector<clipper::Spec> Rows(const std::vector<clipper::onnxruntime::TensorInfo>& tensors) {
    std::vector<clipper::Spec> specs;
    for (const auto& tensor : tensors) {
      const auto& dims = tensor.dims;
      const bool batch = tensor.type() != clipper::DataType::kAny && !dims.empty() && (dims[0] == -1 || dims[0] == 1);
      if (!batch) throw clipper::ModelError("\"" + tensor.name + "\" is no tensor whose first dimension is the batch, free or 1");
      specs.push_back({tensor.type(), {dims.begin() + 1, dims.end()}, tensor.name});
    }
    return specs;
  }

  void Predict(const clipper::Batch& batch, clipper::Result& result) override { session.Run(batch, result); }

  clipper::onnxruntime::Session session;
};

int main(int argc, char** argv) { return clipper::Serve<Onnx>(argc, argv); }
