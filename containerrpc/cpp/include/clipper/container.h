// SPDX-License-Identifier: Apache-2.0
// The runtime of model containers in C++. A class is a container:
//
//   class Linear : public clipper::Model {
//    public:
//     static constexpr char kExpects[] = "ten weights, as text";
//
//     explicit Linear(const std::string& path) {
//       std::ifstream file(path);
//       weights_.assign(std::istream_iterator<float>(file), {});
//       if (weights_.size() != 10) throw clipper::ModelError("there are not ten weights");
//       inputs = {{clipper::DataType::kFloat32, {10}}};
//       outputs = {{clipper::DataType::kFloat32}};
//     }
//
//     void Predict(const clipper::Batch& batch, clipper::Result& result) override {
//       const clipper::Tensor& rows = batch.input();
//       clipper::Span<float> scores = result.Allocate<float>();
//       for (std::size_t i = 0; i < batch.rows(); i++) {
//         auto row = rows.row<float>(i);
//         scores[i] = std::inner_product(row.begin(), row.end(), weights_.begin(), 0.0f);
//       }
//     }
//
//    private:
//     std::vector<float> weights_;
//   };
//
//   int main(int argc, char** argv) { return clipper::Serve<Linear>(argc, argv); }
#ifndef CLIPPER_CONTAINER_H_
#define CLIPPER_CONTAINER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "clipper/loading.h"
#include "clipper/tensor.h"

namespace clipper {

// The model can never be loaded: the file is missing, broken or of the wrong kind. Thrown while the
// model is loaded it ends the process with exit code 78, which tells the launcher not to try again.
// Any other exception does the same, except those that may be gone the next time, which end it with 1:
// std::bad_alloc, and a std::system_error of a connection, of a timeout or of too few resources.
class ModelError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The batch is not one that the model takes. Thrown by Predict it fails the batch as a bad request
// (INVALID_ARGUMENT), while any other exception is a failure of the model; either way the caller gets
// its text, and the container goes on.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What a container says about itself.
struct Options {
  // The signature of one row. With inputs declared, batches that are not like them are refused before
  // Predict sees them. Empty: any input, and outputs that are not known.
  std::vector<Spec> inputs = {}, outputs = {};
  // Larger batches are refused; 0 is no limit.
  std::uint32_t max_batch_rows = 0;
  // How many batches may be predicted at the same time. With 1, Predict is never called twice at once.
  std::uint32_t parallel = 1;
  // Words about the container for people, shown by `clipper model show`: {"framework", "TensorFlow 2.16"}.
  std::map<std::string, std::string> properties = {};
};

// A model that can predict. A subclass sets its options, and loads the saved model, in its constructor:
// the container is up and not ready meanwhile.
class Model : public Options {
 public:
  virtual ~Model() = default;
  // Answers a batch: adds each output to the result. An exception fails the batch and not the container. It
  // is called by one thread at a time, unless `parallel` is more than 1, though not always by the same.
  virtual void Predict(const Batch& batch, Result& result) = 0;
};

namespace internal {

struct Loader {
  std::function<std::unique_ptr<Model>(const std::string& path)> load;
  bool needs_path;
  std::string expects;
};

template <typename T, typename = void>
struct Expects {
  static std::string Text() { return {}; }
};
template <typename T>
struct Expects<T, std::void_t<decltype(T::kExpects)>> {
  static std::string Text() { return T::kExpects; }
};

class Function final : public Model {
 public:
  Function(std::function<void(const Batch&, Result&)> predict, Options options) : predict_(std::move(predict)) {
    static_cast<Options&>(*this) = std::move(options);
  }
  void Predict(const Batch& batch, Result& result) override { predict_(batch, result); }

 private:
  std::function<void(const Batch&, Result&)> predict_;
};

int Serve(int argc, char** argv, Loader loader);

}  // namespace internal

// Serves models of the class M until SIGTERM or SIGINT; main returns what it returns. M is made of the
// path of the saved model, or of nothing if it takes none, while the server listens already. A member
// `static constexpr char kExpects[]` completes the message about a model that cannot be loaded:
// "expected ...".
//
// Settings come from the environment and from the command line; see --help. The exit code is 0 after a
// signal, 78 when the model can never be loaded, 1 when another attempt may succeed, 2 when the command
// line is wrong. Call it once, before there are threads: it blocks the signals in them.
template <typename M>
int Serve(int argc, char** argv) {
  static_assert(std::is_base_of_v<Model, M>, "a container is a subclass of clipper::Model");
  if constexpr (std::is_constructible_v<M, const std::string&>) {
    return internal::Serve(argc, argv, {[](const std::string& path) { return std::make_unique<M>(path); }, true, internal::Expects<M>::Text()});
  } else {
    return internal::Serve(argc, argv, {[](const std::string&) { return std::make_unique<M>(); }, false, internal::Expects<M>::Text()});
  }
}

// Serves a function, which needs no loading.
inline int Serve(int argc, char** argv, std::function<void(const Batch&, Result&)> predict, Options options = {}) {
  return internal::Serve(argc, argv, {[&](const std::string&) { return std::make_unique<internal::Function>(predict, options); }, false, {}});
}

}  // namespace clipper

#endif  // CLIPPER_CONTAINER_H_
