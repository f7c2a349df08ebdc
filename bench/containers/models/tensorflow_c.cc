// SPDX-License-Identifier: Apache-2.0
// Times TensorFlow's C API, by the protocol of bare.py: the rows of a file, of so many float32 each, are given to one tensor of a
// SavedModel, and another one is asked for. model_tensorflow_cpp.py makes the model, builds this program and becomes it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#include <tensorflow/c/c_api.h>

namespace {

void Check(const TF_Status* status) {
  if (TF_GetCode(status) == TF_OK) return;
  std::cerr << TF_Message(status) << '\n';
  std::exit(1);
}

// The place of "operation:output".
TF_Output Place(TF_Graph* graph, const std::string& tensor) {
  const std::size_t colon = tensor.rfind(':');
  const TF_Output place = {TF_GraphOperationByName(graph, tensor.substr(0, colon).c_str()), std::atoi(tensor.c_str() + colon + 1)};
  if (place.oper != nullptr) return place;
  std::cerr << "the graph has no " << tensor << '\n';
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::cerr << "usage: tensorflow_c MODEL ROWS COLUMNS INPUT OUTPUT LIBRARY\n";
    return 2;
  }
  const std::string path = argv[1], file = argv[2], library = argv[6];
  const long columns = std::atol(argv[3]);
  std::ifstream in(file, std::ios::binary);
  const std::vector<char> bytes(std::istreambuf_iterator<char>(in), {});
  // As TensorFlow wants it, which would copy it otherwise.
  float* rows = static_cast<float*>(::operator new(bytes.size(), std::align_val_t(64)));
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(rows));

  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  const char* const tag = "serve";
  TF_Session* session = TF_LoadSessionFromSavedModel(TF_NewSessionOptions(), nullptr, path.c_str(), &tag, 1, graph, nullptr, status);
  Check(status);
  const TF_Output input = Place(graph, argv[4]), output = Place(graph, argv[5]);

  std::cout << "{\"path\": \"" << path << "\", \"rows\": " << bytes.size() / sizeof(float) / columns << ", \"data\": \"" << file
            << "\", \"dtype\": \"float32\", \"shape\": [" << columns << "], \"env\": [\"TENSORFLOW_LIBRARY=" << library << "\"]}" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    long asked = 0;
    double seconds = 0;
    if (std::sscanf(line.c_str(), "{\"rows\":%ld,\"seconds\":%lf}", &asked, &seconds) != 2) return 1;
    using Clock = std::chrono::steady_clock;
    std::vector<double> micros;
    const Clock::time_point begin = Clock::now();
    Clock::time_point after;
    do {
      const Clock::time_point before = Clock::now();
      const int64_t dims[] = {asked, columns};
      TF_Tensor* taken = TF_NewTensor(TF_FLOAT, dims, 2, rows, asked * columns * sizeof(float), [](void*, size_t, void*) {}, nullptr);
      TF_Tensor* given = nullptr;
      TF_SessionRun(session, nullptr, &input, &taken, 1, &output, &given, 1, nullptr, 0, nullptr, status);
      Check(status);
      TF_DeleteTensor(taken);
      TF_DeleteTensor(given);
      after = Clock::now();
      micros.push_back(std::chrono::duration<double, std::micro>(after - before).count());
    } while (std::chrono::duration<double>(after - begin).count() < seconds);
    std::cout << "{\"micros\": [" << micros[0];
    for (std::size_t i = 1; i < micros.size(); i++) std::cout << ", " << micros[i];
    std::cout << "]}" << std::endl;
  }
}
