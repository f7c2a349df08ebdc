// SPDX-License-Identifier: Apache-2.0
// Serves a SavedModel with TensorFlow's C API. TENSORFLOW_SIGNATURE names the signature.
#include <clipper/tensorflow.h>

#include <cstdlib>

const char* Signature() {
  const char* name = std::getenv("TENSORFLOW_SIGNATURE");
  return name == nullptr ? "serving_default" : name;
}

struct TensorFlow : clipper::Model {
  static constexpr char kExpects[] = "the folder of a SavedModel, and TENSORFLOW_SIGNATURE (serving_default) to name one of its signatures";

  explicit TensorFlow(const std::string& path) : model(path, Signature()) {
    inputs = model.inputs();
    outputs = model.outputs();
    max_batch_rows = model.max_batch_rows();
    properties = {{"framework", "tensorflow " + model.version()}};
  }

  void Predict(const clipper::Batch& batch, clipper::Result& result) override { model.Run(batch, result); }

  clipper::SavedModel model;
};

int main(int argc, char** argv) { return clipper::Serve<TensorFlow>(argc, argv); }
