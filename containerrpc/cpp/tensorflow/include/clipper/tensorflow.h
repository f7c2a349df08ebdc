// SPDX-License-Identifier: Apache-2.0
// SavedModels for containers, by TensorFlow's C API. TensorFlow is loaded when the first model is, so a
// program is built without it. TENSORFLOW_LIBRARY says where it is: the folder of libtensorflow_cc.so.2
// (the Python package's, which tensorflow.sysconfig.get_lib() names), or the file of a library with the C
// API. By default the loader of the system looks for libtensorflow_cc.so.2.
#ifndef CLIPPER_TENSORFLOW_H_
#define CLIPPER_TENSORFLOW_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "clipper/container.h"

namespace clipper {

// A SavedModel, and one of its signatures.
class SavedModel {
 public:
  // Loads the graph with the tag "serve" from the model's folder. Throws ModelError when TensorFlow is not there
  // or too old, when the model cannot be read, and when the signature is not there or no container can serve it;
  // std::system_error when there is too little memory.
  SavedModel(const std::string& path, const std::string& signature);
  ~SavedModel();

  // The signature without the batch dimension, sorted by name. TensorFlow has one type for text and byte strings:
  // those whose name ends with "_bytes" are byte strings, as in TensorFlow Serving, and the others are text.
  const std::vector<Spec>& inputs() const { return inputs_; }
  const std::vector<Spec>& outputs() const { return outputs_; }
  // 1 when an input's batch dimension is fixed to that; 0: no limit.
  std::uint32_t max_batch_rows() const { return max_batch_rows_; }
  // TensorFlow's version.
  std::string version() const;

  // Adds the outputs for a batch to the result. The batch has the inputs in the order of inputs(), as it has
  // when the model declares them. Numbers of large batches are taken from where they were received, and sent from
  // where TensorFlow has put them. Several threads may call it at once. Throws InputError for what TensorFlow
  // calls an invalid argument, std::runtime_error for its other errors.
  void Run(const Batch& batch, Result& result) const;

 private:
  struct Session;
  std::unique_ptr<Session> session_;
  std::vector<Spec> inputs_, outputs_;
  std::uint32_t max_batch_rows_ = 0;
};

}  // namespace clipper

#endif  // CLIPPER_TENSORFLOW_H_
