// SPDX-License-Identifier: Apache-2.0
// The container that container_test runs: what it does, the first row of a batch of text says. A batch of
// numbers gets the sum of each row. An echo answers with its inputs.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "clipper/container.h"

namespace {

std::filesystem::path Folder() { return std::getenv("TEST_FOLDER"); }

// Waits until the test makes a file.
void WaitFor(const char* name) {
  while (!std::filesystem::exists(Folder() / name)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

class Scripted : public clipper::Model {
 public:
  static constexpr char kExpects[] = "the word model";

  explicit Scripted(const std::string& path) {
    std::string word;
    std::ifstream(path) >> word;
    if (word == "memory") throw std::bad_alloc();
    if (word == "slow") WaitFor("load");
    if (word == "parallel") parallel = 2;
    if (word == "numbers") {
      inputs = {{clipper::DataType::kFloat32, {3}}};
      outputs = {{clipper::DataType::kFloat32}};
    }
    if (word == "echo") {
      inputs = {{clipper::DataType::kBool, {2}, "flags"}, {clipper::DataType::kFloat16, {-1}, "halves"}, {clipper::DataType::kBytes, {}, "blob"}};
      outputs = inputs;
      echo_ = true;
    }
    if (word.empty() || word == "spoiled") throw clipper::ModelError("the file says '" + word + "'");
    max_batch_rows = 1000;
  }

  void Predict(const clipper::Batch& batch, clipper::Result& result) override {
    if (echo_) {
      const auto flags = batch.input("flags").data<bool>();
      std::copy(flags.begin(), flags.end(), result.Allocate<bool>({2}, "flags").begin());
      const clipper::Tensor& halves = batch.input("halves");
      if (halves.ragged()) {
        const auto values = halves.data<clipper::Float16>();
        std::vector<clipper::Shape> shapes;
        for (std::size_t i = 0; i < batch.rows(); i++) shapes.push_back({static_cast<std::int64_t>(halves.row_size(i))});
        result.AddRagged(std::vector<clipper::Float16>(values.begin(), values.end()), shapes, "halves");
      } else {
        result.Add(halves.type(), halves.dims(), halves.raw(), nullptr, "halves");
      }
      std::vector<std::string> blobs;
      for (std::string_view blob : batch.input("blob").data<std::string_view>()) blobs.emplace_back(blob);
      result.AddBytes(std::move(blobs), {}, "blob");
      return;
    }
    const clipper::Tensor& input = batch.input();
    if (input.type() != clipper::DataType::kString) {
      clipper::Span<float> sums = result.Allocate<float>();
      for (std::size_t i = 0; i < batch.rows(); i++) {
        auto row = input.row<float>(i);
        sums[i] = std::accumulate(row.begin(), row.end(), 0.0f);
      }
      return;
    }
    std::vector<std::string> rows;
    for (std::string_view row : input.data<std::string_view>()) rows.emplace_back(row);
    const std::string order = rows[0];
    if (order == "raise") throw std::invalid_argument("this batch is\nnot good");
    if (order == "raise 7") throw 7;
    if (order == "none") return;
    if (order == "short") rows.pop_back();
    if (order == "latin") rows[0] = "\xe9";
    if (order == "wait") {
      std::ofstream(Folder() / "waiting");
      WaitFor("go");
    }
    if (order == "ragged") {
      result.AddRagged<float>({{1, 2}, {}, {3}});
      return;
    }
    for (std::size_t i = 0; i < rows.size(); i++) {
      if (rows[i] == "fail") result.Fail(i, "row " + std::to_string(i));
    }
    result.Add(std::move(rows));
  }

 private:
  bool echo_ = false;
};

}  // namespace

int main(int argc, char** argv) { return clipper::Serve<Scripted>(argc, argv); }
