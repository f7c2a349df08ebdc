// SPDX-License-Identifier: Apache-2.0
// Containers as processes, over gRPC.
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clipper/v1/model_container_service.grpc.pb.h"
#include "clipper/v1/model_service.grpc.pb.h"

namespace {

using clipper::v1::BatchTensor;
using clipper::v1::PredictRequest;
using clipper::v1::PredictResponse;

BatchTensor Text(const std::vector<std::string>& rows) {
  BatchTensor tensor;
  tensor.set_data_type(clipper::v1::DATA_TYPE_STRING);
  for (const std::string& row : rows) tensor.add_strings(row);
  return tensor;
}

BatchTensor Numbers(const std::vector<float>& values, std::int64_t columns) {
  BatchTensor tensor;
  tensor.set_data_type(clipper::v1::DATA_TYPE_FLOAT32);
  tensor.add_shape(columns);
  tensor.set_data(values.data(), values.size() * sizeof(float));
  return tensor;
}

PredictRequest Batch(std::uint64_t id, std::uint32_t rows, const BatchTensor& input) {
  PredictRequest request;
  request.set_id(id);
  request.set_rows(rows);
  *request.add_inputs() = input;
  return request;
}

PredictRequest TextBatch(std::uint64_t id, const std::vector<std::string>& rows) {
  return Batch(id, static_cast<std::uint32_t>(rows.size()), Text(rows));
}

std::vector<float> Floats(const BatchTensor& tensor) {
  std::vector<float> values(tensor.data().size() / sizeof(float));
  tensor.data().copy(reinterpret_cast<char*>(values.data()), tensor.data().size());
  return values;
}

// The container: CLIPPER_SCRIPTED names one that is built in another way, with a sanitizer.
const char* Program() {
  const char* program = std::getenv("CLIPPER_SCRIPTED");
  return program != nullptr ? program : SCRIPTED;
}

class ProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "clipperXXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }

  void TearDown() override {
    if (pid_ != 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    if (input_ != -1) close(input_);
    if (HasFailure()) std::cerr << ReadLog();
    std::filesystem::remove_all(folder_);
  }

  // Where the container listens.
  std::string Address() const { return address_.empty() ? "unix:" + (folder_ / "s").string() : address_; }

  void Start(const std::string& word, std::vector<std::string> arguments = {}) {
    if (!word.empty()) std::ofstream(folder_ / "model") << word;
    arguments.insert(arguments.begin(), {Program(), "--address", Address(), "--model-path", (folder_ / "model").string()});
    setenv("TEST_FOLDER", folder_.c_str(), 1);
    int input[2];
    ASSERT_EQ(pipe2(input, O_CLOEXEC), 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(input[0], STDIN_FILENO);
      const int log = open((folder_ / "log").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
      dup2(log, STDOUT_FILENO);
      dup2(log, STDERR_FILENO);
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      execv(Program(), argv.data());
      _exit(127);
    }
    close(input[0]);
    if (input_ != -1) close(input_);
    input_ = input[1];
    Connect();
  }

  void Connect() {
    grpc::ChannelArguments channel;
    channel.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
    channel_ = grpc::CreateCustomChannel(Address(), grpc::InsecureChannelCredentials(), channel);
    stub_ = clipper::v1::ModelContainerService::NewStub(channel_);
  }

  void StartAndWait(const std::string& word, std::vector<std::string> arguments = {}) {
    Start(word, std::move(arguments));
    clipper::v1::DescribeResponse description;
    grpc::Status status(grpc::UNAVAILABLE, "");
    for (int i = 0; i < 600 && status.error_code() == grpc::UNAVAILABLE; i++) {
      status = Describe(&description);
      if (!status.ok()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ASSERT_TRUE(status.ok()) << status.error_message();
  }

  grpc::Status Describe(clipper::v1::DescribeResponse* description) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    return stub_->Describe(&context, {}, description);
  }

  // The health status of a service: 1 is serving, 2 is not; -code when the call fails.
  int Health(const std::string& service = "") {
    const grpc::Slice slice(service.empty() ? "" : "\x0a" + std::string(1, static_cast<char>(service.size())) + service);
    grpc::ByteBuffer request(&slice, 1), response;
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    grpc::CompletionQueue queue;
    auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
    call->StartCall();
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    if (!status.ok()) return -status.error_code();
    grpc::Slice answer;
    EXPECT_TRUE(response.DumpToSingleSlice(&answer).ok());
    return answer.size() == 2 ? answer.begin()[1] : 0;
  }

  // The answer to one batch on a stream of its own.
  PredictResponse Predict(const PredictRequest& request) {
    grpc::ClientContext context;
    auto stream = stub_->Predict(&context);
    PredictResponse response;
    EXPECT_TRUE(stream->Write(request));
    EXPECT_TRUE(stream->Read(&response));
    stream->WritesDone();
    PredictResponse more;
    EXPECT_FALSE(stream->Read(&more));
    EXPECT_TRUE(stream->Finish().ok());
    EXPECT_EQ(response.id(), request.id());
    return response;
  }

  void WaitForFile(const char* name) {
    for (int i = 0; i < 6000 && !std::filesystem::exists(folder_ / name); i++) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ASSERT_TRUE(std::filesystem::exists(folder_ / name));
  }

  void Touch(const char* name) { std::ofstream(folder_ / name); }

  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  std::string ReadLog() {
    std::ostringstream text;
    text << std::ifstream(folder_ / "log").rdbuf();
    return text.str();
  }

  // The value of a key in the line of the log that has the words.
  std::string Logged(const std::string& words, const std::string& key) {
    for (int i = 0; i < 6000; i++) {
      std::istringstream lines(ReadLog());
      for (std::string line; std::getline(lines, line);) {
        const std::size_t at = line.find(" " + key + "=");
        if (line.find(words) != std::string::npos && at != std::string::npos) return line.substr(at + key.size() + 2);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    ADD_FAILURE() << "no '" << words << "' in the log";
    return {};
  }

  // What Prometheus is told.
  std::string Scrape() {
    const std::string address = Logged("serving metrics", "address");
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    const int connection = socket(AF_INET, SOCK_STREAM, 0);
    std::string text = "GET /metrics HTTP/1.0\r\n\r\n";
    EXPECT_EQ(connect(connection, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
    EXPECT_EQ(send(connection, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
    text.clear();
    char part[4096];
    for (ssize_t size = 0; (size = recv(connection, part, sizeof part, 0)) > 0;) text.append(part, static_cast<std::size_t>(size));
    close(connection);
    return text;
  }

  std::string LastLine() {
    std::istringstream lines(ReadLog());
    std::string line, last;
    while (std::getline(lines, line)) last = line;
    return last;
  }

  std::filesystem::path folder_;
  std::string address_;
  int input_ = -1;  // the other end of the container's standard input
  pid_t pid_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<clipper::v1::ModelContainerService::Stub> stub_;
};

TEST_F(ProcessTest, PredictsDescribesAndStops) {
  StartAndWait("model", {"--model-name", "m", "--model-version", "3"});
  clipper::v1::DescribeResponse description;
  ASSERT_TRUE(Describe(&description).ok());
  EXPECT_EQ(description.model(), "m");
  EXPECT_EQ(description.version(), "3");
  EXPECT_EQ(description.max_in_flight(), 2u);
  EXPECT_EQ(description.max_batch_rows(), 1000u);
  EXPECT_EQ(Health(), 1);
  EXPECT_EQ(Health("clipper.v1.ModelContainerService"), 1);
  EXPECT_EQ(Health("other"), -grpc::NOT_FOUND);
  const PredictResponse numbers = Predict(Batch(7, 2, Numbers({1, 2, 3, 10, 20, 30}, 3)));
  EXPECT_EQ(Floats(numbers.outputs(0)), (std::vector<float>{6, 60}));
  // So large that it comes and goes in many pieces.
  const PredictResponse many = Predict(Batch(8, 1000, Numbers(std::vector<float>(1000 * 2000, 1), 2000)));
  EXPECT_EQ(Floats(many.outputs(0)), std::vector<float>(1000, 2000));
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "s"));
}

TEST_F(ProcessTest, FailuresStayWithTheirBatchOrRow) {
  StartAndWait("model");
  PredictResponse response = Predict(TextBatch(1, {"raise", "b"}));
  EXPECT_EQ(response.error().code(), 2u);
  EXPECT_EQ(response.error().reason(), clipper::v1::ERROR_REASON_MODEL_FAILED);
  EXPECT_EQ(response.error().message(), "this batch is\nnot good");
  EXPECT_EQ(response.outputs_size(), 0);
  EXPECT_EQ(Predict(TextBatch(2, {"raise 7"})).error().message(), "an exception of type int");
  for (const char* order : {"none", "short", "latin"}) {
    EXPECT_EQ(Predict(TextBatch(3, {order, "b"})).error().reason(), clipper::v1::ERROR_REASON_MODEL_PROTOCOL) << order;
  }
  response = Predict(TextBatch(4, {"rows", "fail", "c"}));
  EXPECT_FALSE(response.has_error());
  EXPECT_EQ(response.outputs(0).strings_size(), 3);
  ASSERT_EQ(response.row_errors_size(), 1);
  EXPECT_EQ(response.row_errors(0).row(), 1u);
  EXPECT_EQ(response.row_errors(0).error().message(), "row 1");
  response = Predict(TextBatch(5, {"ragged", "", ""}));
  EXPECT_EQ(response.outputs(0).row_shapes_size(), 3);
  EXPECT_EQ(Floats(response.outputs(0)), (std::vector<float>{1, 2, 3}));
}

TEST_F(ProcessTest, BadRequestsAreRefusedAndTheStreamGoesOn) {
  StartAndWait("model");
  std::map<std::string, PredictRequest> bad;
  bad["rows"] = Batch(1, 0, Text({}));
  bad["inputs"] = Batch(1, 1, Text({"a"}));
  bad["inputs"].clear_inputs();
  bad["inputs[0].data"] = Batch(1, 2, Numbers({1, 2, 3}, 3));
  bad["inputs[0].shape"] = Batch(1, 1, Numbers({}, -1));
  bad["inputs[0].strings"] = Batch(1, 2, Text({"a"}));
  bad["inputs[0].data_type"] = Batch(1, 1, BatchTensor());
  bad["inputs[0].row_shapes"] = Batch(1, 2, Numbers({1}, 1));
  bad["inputs[0].row_shapes"].mutable_inputs(0)->clear_shape();
  bad["inputs[0].row_shapes"].mutable_inputs(0)->add_row_shapes()->add_dims(1);
  grpc::ClientContext context;
  auto stream = stub_->Predict(&context);
  for (const auto& [field, request] : bad) {
    PredictResponse response;
    ASSERT_TRUE(stream->Write(request));
    ASSERT_TRUE(stream->Read(&response)) << field;
    EXPECT_EQ(response.error().code(), 3u) << field;
    EXPECT_EQ(response.error().field(), field);
  }
  PredictResponse response;
  ASSERT_TRUE(stream->Write(Batch(2, 1001, Text(std::vector<std::string>(1001)))));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.error().reason(), clipper::v1::ERROR_REASON_TOO_LARGE);
  ASSERT_TRUE(stream->Write(TextBatch(3, {"fine"})));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.outputs(0).strings(0), "fine");
}

TEST_F(ProcessTest, TheSignatureIsChecked) {
  StartAndWait("numbers");
  EXPECT_EQ(Predict(TextBatch(1, {"a"})).error().reason(), clipper::v1::ERROR_REASON_INPUT_TYPE);
  EXPECT_EQ(Predict(Batch(2, 1, Numbers({1, 2}, 2))).error().reason(), clipper::v1::ERROR_REASON_INPUT_SHAPE);
  EXPECT_EQ(Floats(Predict(Batch(3, 1, Numbers({1, 2, 3}, 3))).outputs(0)), std::vector<float>{6});
}

TEST_F(ProcessTest, HealthAndDeadlinesWhileAPredictionTakesLongAndTheDrain) {
  StartAndWait("model");
  grpc::ClientContext context, idle_context;
  auto stream = stub_->Predict(&context);
  auto idle = stub_->Predict(&idle_context);
  ASSERT_TRUE(stream->Write(TextBatch(1, {"wait"})));
  WaitForFile("waiting");
  PredictRequest late = TextBatch(2, {"late"});
  late.set_timeout_micros(1);
  ASSERT_TRUE(stream->Write(late));
  EXPECT_EQ(Health(), 1);
  kill(pid_, SIGTERM);
  PredictResponse response;
  EXPECT_FALSE(idle->Read(&response));
  EXPECT_TRUE(idle->Finish().ok());
  Touch("go");
  while (stream->Read(&response)) {
    if (response.id() == 1) {
      EXPECT_EQ(response.outputs(0).strings(0), "wait");
    } else {
      EXPECT_EQ(response.error().reason(), clipper::v1::ERROR_REASON_DEADLINE);
    }
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(Wait(), 0);
}

TEST_F(ProcessTest, ACallerThatGoesAwayLeavesTheContainerWorking) {
  StartAndWait("model");
  {
    grpc::ClientContext context;
    auto stream = stub_->Predict(&context);
    ASSERT_TRUE(stream->Write(TextBatch(1, {"wait"})));
    WaitForFile("waiting");
    context.TryCancel();
    stream->Finish();
  }
  Touch("go");
  EXPECT_EQ(Predict(TextBatch(2, {"fine"})).outputs(0).strings(0), "fine");
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
}

TEST_F(ProcessTest, ParallelModelsTakeBatchesAtTheSameTime) {
  StartAndWait("parallel");
  grpc::ClientContext context;
  auto stream = stub_->Predict(&context);
  ASSERT_TRUE(stream->Write(TextBatch(1, {"wait"})));
  WaitForFile("waiting");
  ASSERT_TRUE(stream->Write(TextBatch(2, {"quick"})));
  PredictResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.id(), 2u);
  Touch("go");
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.id(), 1u);
}

TEST_F(ProcessTest, IsNotReadyWhileItLoads) {
  Start("slow");
  EXPECT_EQ(Health(), 2);
  clipper::v1::DescribeResponse description;
  EXPECT_EQ(Describe(&description).error_code(), grpc::UNAVAILABLE);
  Touch("load");
  for (int i = 0; i < 6000 && Health() != 1; i++) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(Health(), 1);
}

TEST_F(ProcessTest, ModelsThatCannotBeLoaded) {
  Start("spoiled");
  EXPECT_EQ(Wait(), 78);
  EXPECT_EQ(LastLine(), "cannot load the model " + (folder_ / "model").string() + ": the file says 'spoiled'; expected the word model");
  Start("memory");
  EXPECT_EQ(Wait(), 1);
  EXPECT_EQ(LastLine(), "not enough memory to load " + (folder_ / "model").string() + ": std::bad_alloc");
  std::filesystem::remove(folder_ / "model");
  Start("");
  EXPECT_EQ(Wait(), 78);
  EXPECT_NE(LastLine().find("there is no such file"), std::string::npos);
}

TEST_F(ProcessTest, SocketsAndSettings) {
  StartAndWait("model");
  const pid_t first = pid_;
  Start("model");
  EXPECT_EQ(Wait(), 1);
  EXPECT_NE(LastLine().find("another process serves on it"), std::string::npos);
  kill(first, SIGKILL);
  waitpid(first, nullptr, 0);
  StartAndWait("model");  // in the place of the socket that was left
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  Start("model", {"--max-message-bytes", "many"});
  EXPECT_EQ(Wait(), 2);
  Start("model", {"--nonsense"});
  EXPECT_EQ(Wait(), 2);
}

TEST_F(ProcessTest, MessagesAreLimited) {
  StartAndWait("model", {"--max-message-bytes", "1000"});
  grpc::ClientContext context;
  auto stream = stub_->Predict(&context);
  stream->Write(Batch(1, 1, Numbers(std::vector<float>(1000), 1000)));
  PredictResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Predict(TextBatch(2, {"fine"})).outputs(0).strings(0), "fine");
}

TEST_F(ProcessTest, SeveralInputsOfTypesThatCxxHasNoNameFor) {
  StartAndWait("echo");
  PredictRequest request;
  request.set_id(1);
  request.set_rows(2);
  BatchTensor* blob = request.add_inputs();
  blob->set_name("blob");
  blob->set_data_type(clipper::v1::DATA_TYPE_BYTES);
  blob->add_byte_strings(std::string("\x00\xff", 2));
  blob->add_byte_strings("");
  BatchTensor* flags = request.add_inputs();
  flags->set_name("flags");
  flags->set_data_type(clipper::v1::DATA_TYPE_BOOL);
  flags->add_shape(2);
  flags->set_data(std::string("\x01\x00\x00\x01", 4));
  BatchTensor* halves = request.add_inputs();
  halves->set_name("halves");
  halves->set_data_type(clipper::v1::DATA_TYPE_FLOAT16);
  halves->add_shape(3);
  halves->set_data("abcdefghijkl");
  for (const bool ragged : {false, true}) {
    if (ragged) {
      halves->clear_shape();
      for (const int length : {2, 4}) halves->add_row_shapes()->add_dims(length);
    }
    const PredictResponse response = Predict(request);
    ASSERT_EQ(response.outputs_size(), 3) << response.DebugString();
    for (const BatchTensor& output : response.outputs()) {
      for (const BatchTensor& input : request.inputs()) {
        if (input.name() != output.name()) continue;
        EXPECT_EQ(output.SerializeAsString(), input.SerializeAsString());
      }
    }
  }
  flags->mutable_data()->at(1) = 2;
  EXPECT_EQ(Predict(request).error().field(), "inputs[1].data");
  flags->mutable_data()->at(1) = 0;
  flags->set_name("halves");
  EXPECT_EQ(Predict(request).error().field(), "inputs[2].name");
  flags->set_name("flag");
  EXPECT_EQ(Predict(request).error().message(), "the batch has no input 'flags'");
  request.mutable_inputs()->RemoveLast();
  EXPECT_EQ(Predict(request).error().field(), "inputs");
}

TEST_F(ProcessTest, WhoWatchesTheHealthSeesItChange) {
  Start("slow");
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  grpc::GenericStub stub(channel_);
  grpc::CompletionQueue queue;
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  auto call = stub.PrepareCall(&context, "/grpc.health.v1.Health/Watch", &queue);
  call->StartCall(nullptr);
  ASSERT_TRUE(next());
  const grpc::Slice nothing("");
  call->WriteLast(grpc::ByteBuffer(&nothing, 1), {}, nullptr);
  ASSERT_TRUE(next());
  const auto expect = [&](int status) {
    grpc::ByteBuffer message;
    call->Read(&message, nullptr);
    ASSERT_TRUE(next());
    grpc::Slice bytes;
    ASSERT_TRUE(message.DumpToSingleSlice(&bytes).ok());
    ASSERT_EQ(bytes.size(), 2u);
    EXPECT_EQ(bytes.begin()[1], status);
  };
  expect(2);
  Touch("load");
  expect(1);
  kill(pid_, SIGTERM);
  expect(2);
  grpc::Status status;
  call->Finish(&status, nullptr);
  EXPECT_TRUE(next());
  EXPECT_EQ(status.error_code(), grpc::UNAVAILABLE);
  EXPECT_EQ(Wait(), 0);
}

TEST_F(ProcessTest, ACallerThatSendsTooMuchWaitsAndTheMetricsTell) {
  StartAndWait("model", {"--metrics-address", ":0"});
  EXPECT_NE(Scrape().find("clipper_container_ready 1\n"), std::string::npos);
  grpc::ClientContext context;
  auto stream = stub_->Predict(&context);
  ASSERT_TRUE(stream->Write(TextBatch(1, {"wait", "fail"})));
  WaitForFile("waiting");
  for (std::uint64_t id = 2; id <= 5; id++) ASSERT_TRUE(stream->Write(TextBatch(id, {"raise"})));
  for (int i = 0; i < 6000 && Scrape().find("clipper_container_in_flight 2\n") == std::string::npos; i++) {
  }
  PredictResponse response;
  EXPECT_EQ(Predict(Batch(6, 0, Text({}))).error().field(), "rows");
  EXPECT_NE(Scrape().find("clipper_container_in_flight 2\n"), std::string::npos);  // and never 5
  kill(pid_, SIGTERM);
  for (int i = 0; i < 6000 && Scrape().find("clipper_container_ready 0\n") == std::string::npos; i++) {
  }
  Touch("go");
  // What was taken is answered; the rest is for another replica.
  for (std::uint64_t id = 1; id <= 2; id++) {
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.id(), id);
  }
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(Wait(), 0);
}

TEST_F(ProcessTest, MetricsCountWhatWasAnswered) {
  StartAndWait("model", {"--metrics-address", "127.0.0.1:0"});
  Predict(TextBatch(1, {"a", "fail", "fail"}));
  Predict(TextBatch(2, {"raise", "b"}));
  Predict(Batch(3, 0, Text({})));
  const std::string text = Scrape();
  for (const char* line : {"batches_total{result=\"ok\"} 1", "batches_total{result=\"error\"} 1", "batches_total{result=\"refused\"} 1", "rows_total 3",
                           "row_errors_total 2", "predict_seconds_count 2", "batch_rows_sum 5", "in_flight 0", "ready 1"}) {
    EXPECT_NE(text.find("\nclipper_container_" + std::string(line) + "\n"), std::string::npos) << line << "\n" << text;
  }
}

TEST_F(ProcessTest, ServesOnAFreePort) {
  address_ = "127.0.0.1:0";
  Start("model");
  address_ = Logged("listening", "address");
  ASSERT_NE(address_, "127.0.0.1:0");
  Connect();
  for (int i = 0; i < 6000 && Health() != 1; i++) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(Predict(TextBatch(1, {"fine"})).outputs(0).strings(0), "fine");
  const pid_t first = pid_;
  Start("model");
  EXPECT_EQ(Wait(), 1);
  EXPECT_NE(LastLine().find("cannot serve on " + address_), std::string::npos);
  pid_ = first;
}

TEST_F(ProcessTest, EndsWithItsParent) {
  StartAndWait("model", {"--exit-with-parent"});
  close(std::exchange(input_, -1));
  EXPECT_EQ(Wait(), 0);
  EXPECT_NE(ReadLog().find("the parent process is gone"), std::string::npos);
}

TEST_F(ProcessTest, EndsWithItsParentThoughTheModelHangs) {
  StartAndWait("model", {"--exit-with-parent"});
  grpc::ClientContext context;
  auto stream = stub_->Predict(&context);
  ASSERT_TRUE(stream->Write(TextBatch(1, {"wait"})));
  WaitForFile("waiting");
  close(std::exchange(input_, -1));
  EXPECT_EQ(Wait(), 1);
}

TEST_F(ProcessTest, HelpNamesEverySetting) {
  Start("model", {"--help"});
  EXPECT_EQ(Wait(), 0);
  const std::string help = ReadLog();
  for (const char* words : {"--address ADDRESS", "CLIPPER_CONTAINER_ADDRESS; default: 127.0.0.1:7000", "--model-path", "--register-address",
                            "--advertise-address", "--metrics-address", "--max-message-bytes", "--log-level", "--exit-with-parent"}) {
    EXPECT_NE(help.find(words), std::string::npos) << words;
  }
}

// Plays Clipper's administration: refuses what it is told to, in order, and keeps what came.
class Admin final : public clipper::v1::ModelService::Service {
 public:
  explicit Admin(std::deque<grpc::Status> refusals = {}) : refusals_(std::move(refusals)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~Admin() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  // From now on a call is not answered before its caller gives up.
  void Hang() {
    std::lock_guard lock(mu_);
    hang_ = true;
  }

  // Whether the call that hangs was given up before its time was over.
  bool GivenUp() {
    std::unique_lock lock(mu_);
    return came_.wait_for(lock, std::chrono::seconds(30), [this] { return given_up_; });
  }

  clipper::v1::RegisterReplicaRequest Next() {
    std::unique_lock lock(mu_);
    if (!came_.wait_for(lock, std::chrono::seconds(30), [this] { return !requests_.empty(); })) return {};
    clipper::v1::RegisterReplicaRequest request = requests_.front();
    requests_.pop_front();
    return request;
  }

 private:
  grpc::Status RegisterReplica(grpc::ServerContext* context, const clipper::v1::RegisterReplicaRequest* request,
                               clipper::v1::RegisterReplicaResponse*) override {
    std::unique_lock lock(mu_);
    requests_.push_back(*request);
    came_.notify_all();
    if (hang_ && request->lease().seconds() > 0) {
      lock.unlock();
      while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      lock.lock();
      given_up_ = std::chrono::system_clock::now() < context->deadline();
      came_.notify_all();
      return grpc::Status::CANCELLED;
    }
    if (refusals_.empty()) return grpc::Status::OK;
    grpc::Status refusal = refusals_.front();
    refusals_.pop_front();
    return refusal;
  }

  int port_ = 0;
  std::mutex mu_;
  bool hang_ = false, given_up_ = false;
  std::condition_variable came_;
  std::deque<clipper::v1::RegisterReplicaRequest> requests_;
  std::deque<grpc::Status> refusals_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(ProcessTest, RegistersTriesAgainAndLeaves) {
  Admin admin({grpc::Status(grpc::UNAVAILABLE, "the store is away")});
  Start("model", {"--model-name", "m", "--model-version", "3", "--register-address", admin.address()});
  for (int i = 0; i < 2; i++) {
    const auto request = admin.Next();
    EXPECT_EQ(request.model() + request.version(), "m3");
    EXPECT_EQ(request.address(), Address());
    EXPECT_EQ(request.lease().seconds(), 15);
  }
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  const auto left = admin.Next();
  EXPECT_TRUE(left.has_lease());
  EXPECT_EQ(left.lease().seconds(), 0);
  EXPECT_NE(ReadLog().find("the store is away"), std::string::npos);
}

TEST_F(ProcessTest, StopsAndLeavesWhileARegistrationHangs) {
  Admin admin;
  admin.Hang();
  Start("model", {"--model-name", "m", "--model-version", "3", "--register-address", admin.address()});
  EXPECT_EQ(admin.Next().lease().seconds(), 15);
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_TRUE(admin.GivenUp());
  const auto left = admin.Next();
  EXPECT_TRUE(left.has_lease());
  EXPECT_EQ(left.lease().seconds(), 0);
}

TEST_F(ProcessTest, AReplicaThatIsRefusedEnds) {
  Admin admin({grpc::Status(grpc::INVALID_ARGUMENT, "address: not that one")});
  Start("model", {"--model-name", "m", "--model-version", "3", "--register-address", admin.address()});
  EXPECT_EQ(Wait(), 1);
  EXPECT_EQ(LastLine(), "register at Clipper: address: not that one");
  Start("model", {"--register-address", admin.address()});
  EXPECT_EQ(Wait(), 1);
  EXPECT_NE(LastLine().find("CLIPPER_MODEL_VERSION"), std::string::npos);
}

}  // namespace
