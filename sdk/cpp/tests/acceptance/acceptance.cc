// SPDX-License-Identifier: Apache-2.0
// The list of sdk/acceptance against a real server, with calls that wait and with futures.
// CLIPPER_ACCEPTANCE_SERVER names the program.
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <sstream>

#include "clipper/client.h"

namespace {

namespace clip = clipper::client;
namespace v1 = clipper::v1;
namespace json = google::protobuf::util;
using google::protobuf::Message;
using google::protobuf::Value;  // JSON

// A program whose input and output are here.
class Program {
 public:
  explicit Program(std::vector<std::string> arguments) {
    int in[2], out[2];
    if (pipe(in) != 0 || pipe(out) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], 0);
      dup2(out[1], 1);
      for (int fd : {in[0], in[1], out[0], out[1]}) close(fd);
      if (!freopen("/dev/null", "w", stderr)) _exit(127);
      std::vector<char*> argv;
      for (std::string& a : arguments) argv.push_back(a.data());
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    in_ = in[1];
    out_ = fdopen(out[0], "r");
  }
  ~Program() { End(); }

  std::string Read(char until) {
    std::string text;
    for (int c; (c = fgetc(out_)) != EOF && c != until;) text += static_cast<char>(c);
    return text;
  }

  int End() {
    if (pid_ <= 0) return 0;
    close(in_);
    int status = 0;
    waitpid(pid_, &status, 0);
    fclose(out_);
    pid_ = 0;
    return status;
  }

 private:
  pid_t pid_;
  int in_;
  FILE* out_;
};

// JSON, by google.protobuf.Value.

Value Parse(const std::string& text) {
  Value value;
  EXPECT_TRUE(json::JsonStringToMessage(text, &value).ok()) << text;
  return value;
}

std::string Text(const Message& message) {
  json::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  EXPECT_TRUE(json::MessageToJsonString(message, &text, options).ok());
  return text;
}

Value ValueOf(const Message& message) { return Parse(Text(message)); }

template <typename M>
M MessageOf(const Value& value) {
  M message;
  const auto status = json::JsonStringToMessage(Text(value), &message);
  EXPECT_TRUE(status.ok()) << status << Text(value);
  return message;
}

Value Of(const std::string& s) {
  Value v;
  v.set_string_value(s);
  return v;
}
Value Of(const char* s) { return Of(std::string(s)); }
Value Of(double x) {
  Value v;
  v.set_number_value(x);
  return v;
}
Value Of(bool b) {
  Value v;
  v.set_bool_value(b);
  return v;
}
Value ListOf(const std::vector<Value>& items) {
  Value v;
  v.mutable_list_value()->mutable_values()->Add(items.begin(), items.end());
  return v;
}
Value ObjectOf(const std::map<std::string, Value>& members) {
  Value v;
  v.mutable_struct_value()->mutable_fields()->insert(members.begin(), members.end());
  return v;
}

const Value& At(const Value& value, const std::string& name) {
  static const Value none;
  const auto& fields = value.struct_value().fields();
  const auto found = fields.find(name);
  return found == fields.end() ? none : found->second;
}
const std::string& StringAt(const Value& value, const std::string& name) { return At(value, name).string_value(); }
const auto& ItemsAt(const Value& value, const std::string& name) { return At(value, name).list_value().values(); }

bool IsEmpty(const Value& v) {
  switch (v.kind_case()) {
    case Value::kBoolValue:
      return !v.bool_value();
    case Value::kNumberValue:
      return v.number_value() == 0;
    case Value::kStringValue:
      return v.string_value().empty();
    case Value::kListValue:
      return v.list_value().values().empty();
    case Value::kStructValue:
      return v.struct_value().fields().empty();
    default:
      return true;
  }
}

// Says how what is there does not match what is wanted; nothing when it does.
std::string Mismatch(const std::string& path, const Value& have, const Value& want) {
  if (want.has_struct_value()) {
    for (const auto& [name, value] : want.struct_value().fields()) {
      if (name == "http" || name == "rest_field") continue;
      if (auto problem = Mismatch(path + "." + name, At(have, name), value); !problem.empty()) return problem;
    }
    return {};
  }
  if (want.has_list_value()) {
    const auto& haves = have.list_value().values();
    const auto& wants = want.list_value().values();
    if (!wants.empty() && wants[0].string_value() == "$includes") {
      for (int i = 1; i < wants.size(); ++i) {
        if (std::none_of(haves.begin(), haves.end(), [&](const Value& h) { return Mismatch(path, h, wants[i]).empty(); })) {
          return path + ": nothing is " + Text(wants[i]);
        }
      }
      return {};
    }
    if (haves.size() != wants.size()) return path + ": " + std::to_string(haves.size()) + " elements, want " + std::to_string(wants.size());
    for (int i = 0; i < wants.size(); ++i) {
      if (auto problem = Mismatch(path + "[" + std::to_string(i) + "]", haves[i], wants[i]); !problem.empty()) return problem;
    }
    return {};
  }
  if (want.string_value() == "$any") return IsEmpty(have) ? path + ": is empty" : "";
  if ((IsEmpty(have) && IsEmpty(want)) || have.SerializeAsString() == want.SerializeAsString()) return {};
  return path + ": " + Text(have) + ", want " + Text(want);
}

// Tensors.

template <typename T>
T Number(const Value& v) {
  std::istringstream text(v.string_value());
  if (!v.has_string_value()) return static_cast<T>(v.number_value());
  if (v.string_value() == "NaN") return static_cast<T>(std::nan(""));
  if constexpr (std::is_same_v<T, std::int64_t> || std::is_same_v<T, std::uint64_t>) {
    T out;
    text >> out;
    return out;
  }
  return static_cast<T>(std::stod(v.string_value()));
}

// Base64, as the JSON form of bytes reads and writes it.
std::string Decode(const std::string& text) {
  Value v = ObjectOf({{"data", Of(text)}});
  return MessageOf<v1::Tensor>(v).data();
}
Value Encode(const std::string& bytes) {
  v1::Tensor t;
  t.set_data(bytes);
  return At(ValueOf(t), "data");
}

v1::Tensor TensorOf(const Value& t) {
  clip::Shape shape;
  for (const Value& d : ItemsAt(t, "shape")) shape.push_back(Number<std::int64_t>(d));
  const auto& items = ItemsAt(t, "values");
  const auto numbers = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> values;
    for (const Value& v : items) values.push_back(Number<T>(v));
    return values;
  };
  std::vector<std::string> strings;
  std::vector<bool> booleans;
  const std::string& type = StringAt(t, "type");
  for (const Value& v : items) {
    strings.push_back(type == "bytes" ? Decode(v.string_value()) : v.string_value());
    booleans.push_back(v.bool_value());
  }
  v1::Tensor tensor;
  if (type == "bool") tensor = clip::MakeTensor(booleans, shape);
  if (type == "uint8") tensor = clip::MakeTensor(numbers(std::uint8_t{}), shape);
  if (type == "uint16") tensor = clip::MakeTensor(numbers(std::uint16_t{}), shape);
  if (type == "uint32") tensor = clip::MakeTensor(numbers(std::uint32_t{}), shape);
  if (type == "uint64") tensor = clip::MakeTensor(numbers(std::uint64_t{}), shape);
  if (type == "int8") tensor = clip::MakeTensor(numbers(std::int8_t{}), shape);
  if (type == "int16") tensor = clip::MakeTensor(numbers(std::int16_t{}), shape);
  if (type == "int32") tensor = clip::MakeTensor(numbers(std::int32_t{}), shape);
  if (type == "int64") tensor = clip::MakeTensor(numbers(std::int64_t{}), shape);
  if (type == "float16") tensor = clip::MakeFloat16(numbers(float{}), shape);
  if (type == "bfloat16") tensor = clip::MakeBfloat16(numbers(float{}), shape);
  if (type == "float32") tensor = clip::MakeTensor(numbers(float{}), shape);
  if (type == "float64") tensor = clip::MakeTensor(numbers(double{}), shape);
  if (type == "string") tensor = clip::MakeTensor(strings, shape);
  if (type == "bytes") tensor = clip::MakeBytes(strings, shape);
  EXPECT_NE(tensor.data_type(), v1::DATA_TYPE_UNSPECIFIED) << type;
  return clip::Named(StringAt(t, "name"), std::move(tensor));
}

template <typename T>
Value ListOfTensor(const v1::Tensor& t) {
  auto values = clip::Values<T>(t);
  EXPECT_TRUE(values) << values.error().ToString();
  std::vector<Value> items;
  if (!values) return ListOf(items);
  for (const auto& x : *values) {
    if constexpr (std::is_same_v<T, std::string>) {
      items.push_back(t.data_type() == v1::DATA_TYPE_BYTES ? Encode(x) : Of(x));
    } else if constexpr (std::is_same_v<T, bool>) {
      items.push_back(Of(static_cast<bool>(x)));
    } else {
      const bool beyond = std::is_integral_v<T> && std::fabs(static_cast<long double>(x)) > 9007199254740992.0L;
      items.push_back(beyond ? Of(std::to_string(x)) : Of(static_cast<double>(x)));
    }
  }
  return ListOf(items);
}

Value ObjectOf(const v1::Tensor& t) {
  Value values;
  switch (t.data_type()) {
    case v1::DATA_TYPE_BOOL:
      values = ListOfTensor<bool>(t);
      break;
    case v1::DATA_TYPE_UINT8:
      values = ListOfTensor<std::uint8_t>(t);
      break;
    case v1::DATA_TYPE_UINT16:
      values = ListOfTensor<std::uint16_t>(t);
      break;
    case v1::DATA_TYPE_UINT32:
      values = ListOfTensor<std::uint32_t>(t);
      break;
    case v1::DATA_TYPE_UINT64:
      values = ListOfTensor<std::uint64_t>(t);
      break;
    case v1::DATA_TYPE_INT8:
      values = ListOfTensor<std::int8_t>(t);
      break;
    case v1::DATA_TYPE_INT16:
      values = ListOfTensor<std::int16_t>(t);
      break;
    case v1::DATA_TYPE_INT32:
      values = ListOfTensor<std::int32_t>(t);
      break;
    case v1::DATA_TYPE_INT64:
      values = ListOfTensor<std::int64_t>(t);
      break;
    case v1::DATA_TYPE_FLOAT64:
      values = ListOfTensor<double>(t);
      break;
    case v1::DATA_TYPE_STRING:
    case v1::DATA_TYPE_BYTES:
      values = ListOfTensor<std::string>(t);
      break;
    default:
      values = ListOfTensor<float>(t);
  }
  std::string type = v1::DataType_Name(t.data_type()).substr(sizeof("DATA_TYPE_") - 1);
  for (char& c : type) c = static_cast<char>(std::tolower(c));
  std::vector<Value> shape;
  for (std::int64_t d : t.shape()) shape.push_back(Of(static_cast<double>(d)));
  return ObjectOf({{"name", Of(t.name())}, {"type", Of(type)}, {"shape", ListOf(shape)}, {"values", values}});
}

Value ListOfTensors(const google::protobuf::RepeatedPtrField<v1::Tensor>& tensors) {
  std::vector<Value> items;
  for (const v1::Tensor& t : tensors) items.push_back(ObjectOf(t));
  return ListOf(items);
}

// Requests and answers, as a program makes and reads them.

v1::QueryRequest QueryOf(const Value& r) {
  v1::QueryRequest q;
  q.set_application(StringAt(r, "application"));
  for (const Value& t : ItemsAt(r, "inputs")) *q.add_inputs() = TensorOf(t);
  q.set_input_json(StringAt(r, "input_json"));
  q.set_context(StringAt(r, "context"));
  q.set_id(StringAt(r, "id"));
  q.set_priority(static_cast<std::uint32_t>(At(r, "priority").number_value()));
  if (At(r, "timeout_ms").has_number_value()) q.mutable_timeout()->set_nanos(static_cast<int>(At(r, "timeout_ms").number_value()) * 1'000'000);
  return q;
}

v1::FeedbackRequest FeedbackOf(const Value& r) {
  v1::FeedbackRequest f;
  f.set_application(StringAt(r, "application"));
  f.set_feedback_id(StringAt(r, "feedback_id"));
  for (const Value& t : ItemsAt(r, "inputs")) *f.add_inputs() = TensorOf(t);
  f.set_input_json(StringAt(r, "input_json"));
  f.set_context(StringAt(r, "context"));
  f.set_id(StringAt(r, "id"));
  const Value& truth = At(r, "truth");
  if (truth.has_string_value()) *f.mutable_truth() = clip::Truth(truth.string_value());
  if (truth.has_number_value()) *f.mutable_truth() = clip::Truth(truth.number_value());
  if (At(r, "reward").has_number_value()) f.set_reward(At(r, "reward").number_value());
  return f;
}

template <typename Enum>
std::string Suffix(const std::string& name, const std::string& prefix, Enum none, Enum value) {
  return value == none ? "" : name.substr(prefix.size());
}

Value ObjectOf(const v1::QueryResponse& a) {
  std::vector<Value> predictions;
  for (const v1::ModelPrediction& p : a.predictions()) {
    predictions.push_back(ObjectOf(std::map<std::string, Value>{
        {"model", Of(p.model())},
        {"version", Of(p.version())},
        {"status", Of(Suffix(v1::PredictionStatus_Name(p.status()), "PREDICTION_STATUS_", v1::PREDICTION_STATUS_UNSPECIFIED, p.status()))},
        {"outputs", ListOfTensors(p.outputs())},
        {"message", Of(p.message())},
        {"cached", Of(p.cached())},
        {"propensity", Of(p.propensity())},
        {"shadow", Of(p.shadow())}}));
  }
  return ObjectOf(std::map<std::string, Value>{
      {"outputs", ListOfTensors(a.outputs())},
      {"is_default", Of(a.is_default())},
      {"default_reason", Of(Suffix(v1::DefaultReason_Name(a.default_reason()), "DEFAULT_REASON_", v1::DEFAULT_REASON_UNSPECIFIED, a.default_reason()))},
      {"confidence", Of(a.confidence())},
      {"predictions", ListOf(predictions)},
      {"feedback_id", Of(a.feedback_id())},
      {"id", Of(a.id())}});
}

Value ObjectOf(const v1::FeedbackResponse& r) { return ValueOf(r); }

Value ObjectOf(const clip::Error& e) {
  std::map<std::string, Value> members{
      {"code", Of(clip::Name(e.code))}, {"reason", Of(e.reason)}, {"field", Of(e.field)}, {"message", Of(e.message)}};
  if (e.retry_after) members["retry_after_ms"] = Of(static_cast<double>(e.retry_after->count()));
  return ObjectOf(members);
}

template <typename T>
Value ItemOf(const clip::Result<T>& r) {
  return r ? ObjectOf(*r) : ObjectOf(std::map<std::string, Value>{{"error", ObjectOf(r.error())}});
}

std::string Camel(const std::string& name) {
  std::string out;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '_' && i + 1 < name.size()) {
      out += static_cast<char>(std::toupper(name[++i]));
    } else {
      out += name[i];
    }
  }
  return out;
}

using Answer = clip::Result<Value>;

// Runs the cases; they build on one another.
class Runner {
 public:
  Runner(const Value& at, bool futures) : futures_(futures) {
    saved_["container"] = At(at, "container");
    clip::Options options;
    options.address = StringAt(at, "query_grpc");
    options.admin_address = StringAt(at, "admin_grpc");
    Add("clipper", options);
    options.address = StringAt(at, "canned_grpc");
    Add("canned", options);
    options = {};
    options.address = StringAt(at, "secure_grpc");
    options.ca_file = StringAt(at, "ca_file");
    options.cert_file = StringAt(at, "cert_file");
    options.key_file = StringAt(at, "key_file");
    Add("keyless", options);
    options.api_key = StringAt(at, "api_key");
    Add("secure", options);
  }

  void Test(const Value& c) {
    const std::string& server = StringAt(c, "server");
    const Value request = Fill(At(c, "request"));
    const Answer answer = Call(clients_.at(server.empty() ? "clipper" : server), StringAt(c, "call"), request);
    if (At(c, "error").has_struct_value()) {
      ASSERT_FALSE(answer) << "no error but " << Text(*answer);
      EXPECT_EQ(Mismatch("error", ObjectOf(answer.error()), At(c, "error")), "");
      return;
    }
    ASSERT_TRUE(answer) << answer.error().ToString();
    EXPECT_EQ(Mismatch("answer", *answer, Fill(At(c, "expect"))), "") << Text(*answer);
    for (const auto& [name, path] : At(c, "save").struct_value().fields()) {
      Value value = *answer;
      std::istringstream parts(path.string_value());
      for (std::string part; std::getline(parts, part, '.');) value = Value(At(value, part));
      saved_[name] = value;
    }
  }

  // What the list does not have: calls that answer with many messages.
  void TestManyAnswers() {
    const clip::Client& client = clients_.at("clipper");
    v1::ExportSelectionStateRequest learned;
    learned.set_application("label");
    int states = 0;
    auto error = client.ExportSelectionState(learned, [&](const v1::ExportSelectionStateResponse& r) { return r.has_state() && ++states > 0; });
    EXPECT_FALSE(error) << error->ToString();
    EXPECT_GE(states, 1);
    states = 0;
    error = client.ExportSelectionState(learned, [&](const v1::ExportSelectionStateResponse&) { return ++states < 1; });
    EXPECT_FALSE(error) << error->ToString();
    EXPECT_EQ(states, 1);
    learned.set_application("nobody");
    error = client.ExportSelectionState(learned, [](const v1::ExportSelectionStateResponse&) { return true; });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->reason, clip::reason::kApplicationNotFound);
    v1::ReadLogsRequest logs;
    logs.set_model("label");
    logs.set_version("1");
    error = client.ReadLogs(logs, [](const v1::ReadLogsResponse&) { return true; });
    EXPECT_FALSE(error) << error->ToString();
  }

 private:
  void Add(const std::string& name, const clip::Options& options) {
    auto client = clip::Client::Make(options);
    ASSERT_TRUE(client) << client.error().ToString();
    clients_.emplace(name, *client);
  }

  // Replaces each "$name" by what was saved.
  Value Fill(const Value& value) const {
    Value out = value;
    if (value.has_list_value()) {
      for (Value& v : *out.mutable_list_value()->mutable_values()) v = Fill(Value(v));
    } else if (value.has_struct_value()) {
      for (auto& [name, v] : *out.mutable_struct_value()->mutable_fields()) v = Fill(Value(v));
    } else if (value.string_value().substr(0, 1) == "$") {
      if (auto found = saved_.find(value.string_value().substr(1)); found != saved_.end()) out = found->second;
    }
    return out;
  }

// Makes a call in the form that is tested.
#define CALL(NAME, ...) (futures_ ? client.NAME##Async(__VA_ARGS__).get() : client.NAME(__VA_ARGS__))

  Answer Call(const clip::Client& client, const std::string& name, const Value& r) {
    if (name == "query") {
      auto answer = CALL(Query, QueryOf(r));
      if (!answer) return answer.error();
      return ObjectOf(*answer);
    }
    if (name == "query_batch") {
      v1::QueryBatchRequest batch;
      batch.set_application(StringAt(r, "application"));
      for (const Value& item : ItemsAt(r, "queries")) {
        v1::QueryRequest q = QueryOf(item);
        v1::BatchQuery& b = *batch.add_queries();
        b.mutable_inputs()->Swap(q.mutable_inputs());
        b.set_input_json(q.input_json());
        b.set_context(q.context());
        b.set_id(q.id());
        b.set_priority(q.priority());
      }
      return Results(CALL(QueryBatch, batch));
    }
    if (name == "query_stream") {
      clip::QueryStream stream = client.OpenStream();
      std::vector<std::future<clip::Result<v1::QueryResponse>>> waiting;
      for (const Value& q : ItemsAt(r, "queries")) waiting.push_back(stream.QueryAsync(QueryOf(q)));
      std::vector<Value> results;
      for (auto& w : waiting) results.push_back(ItemOf(w.get()));
      return ObjectOf(std::map<std::string, Value>{{"results", ListOf(results)}});
    }
    if (name == "feedback") {
      auto answer = CALL(Feedback, FeedbackOf(r));
      if (!answer) return answer.error();
      return ObjectOf(*answer);
    }
    if (name == "feedback_batch") {
      v1::FeedbackBatchRequest batch;
      batch.set_application(StringAt(r, "application"));
      for (const Value& item : ItemsAt(r, "items")) *batch.add_items() = FeedbackOf(item);
      return Results(CALL(FeedbackBatch, batch));
    }
    const auto page_size = static_cast<std::uint32_t>(At(r, "page_size").number_value());
    if (name == "list_applications") return All("applications", client.AllApplications(page_size));
    if (name == "list_models") return All("models", client.AllModels(page_size));
    if (name == "wait_model_ready") {
      auto version = client.WaitModelReady(StringAt(r, "model"), StringAt(r, "version"), std::chrono::minutes(1));
      if (!version) return version.error();
      return ObjectOf(std::map<std::string, Value>{{"version", ValueOf(*version)}});
    }
    return Administer(client, name, r);
  }

  // Calls whose requests and answers are the JSON form of the messages.
  Answer Administer(const clip::Client& client, const std::string& name, Value r) {
    if (At(r, "update_mask").has_list_value()) {
      std::string mask;
      for (const Value& field : ItemsAt(r, "update_mask")) mask += (mask.empty() ? "" : ",") + Camel(field.string_value());
      (*r.mutable_struct_value()->mutable_fields())["update_mask"] = Of(mask);
    }
#define ADMINISTER(CALLED, NAME)                               \
  if (name == CALLED) {                                        \
    auto answer = CALL(NAME, MessageOf<v1::NAME##Request>(r)); \
    if (!answer) return answer.error();                        \
    return ValueOf(*answer);                                   \
  }
    ADMINISTER("create_application", CreateApplication)
    ADMINISTER("get_application", GetApplication)
    ADMINISTER("update_application", UpdateApplication)
    ADMINISTER("delete_application", DeleteApplication)
    ADMINISTER("get_selection_state", GetSelectionState)
    ADMINISTER("reset_selection_state", ResetSelectionState)
    ADMINISTER("get_canary", GetCanary)
    ADMINISTER("deploy_model", DeployModel)
    ADMINISTER("get_model", GetModel)
    ADMINISTER("get_model_version", GetModelVersion)
    ADMINISTER("update_model_version", UpdateModelVersion)
    ADMINISTER("set_current_version", SetCurrentVersion)
    ADMINISTER("delete_model_version", DeleteModelVersion)
    ADMINISTER("delete_model", DeleteModel)
    ADD_FAILURE() << "there is no call " << name;
    return Value();
  }

  template <typename Batch>
  Answer Results(const clip::Result<Batch>& batch) {
    if (!batch) return batch.error();
    std::vector<Value> results;
    for (const auto& r : batch->results()) results.push_back(ItemOf(clip::ItemResult(r)));
    return ObjectOf(std::map<std::string, Value>{{"results", ListOf(results)}});
  }

  template <typename T>
  Answer All(const std::string& name, const clip::Result<std::vector<T>>& all) {
    if (!all) return all.error();
    std::vector<Value> items;
    for (const T& item : *all) items.push_back(ValueOf(item));
    return ObjectOf(std::map<std::string, Value>{{name, ListOf(items)}});
  }

  bool futures_;
  std::map<std::string, clip::Client> clients_;
  std::map<std::string, Value> saved_;
};

// One server for all cases of one form of calls.
class Suite : public testing::Test {
 public:
  static void TearDownTestSuite() {
    runner.reset();
    EXPECT_EQ(server->End(), 0);
    server.reset();
  }
  static inline std::unique_ptr<Program> server;
  static inline std::unique_ptr<Runner> runner;
};

class Case : public Suite {
 public:
  Case(Value value, std::string program, bool futures) : value_(std::move(value)), program_(std::move(program)), futures_(futures) {}
  void TestBody() override {
    if (!runner) {
      server = std::make_unique<Program>(std::vector<std::string>{program_});
      const std::string line = server->Read('\n');
      ASSERT_FALSE(line.empty()) << "the server has not started";
      runner = std::make_unique<Runner>(Parse(line), futures_);
    }
    value_.has_struct_value() ? runner->Test(value_) : runner->TestManyAnswers();
  }

 private:
  Value value_;
  std::string program_;
  bool futures_;
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const char* program = std::getenv("CLIPPER_ACCEPTANCE_SERVER");
  if (!program) {
    std::fprintf(stderr, "CLIPPER_ACCEPTANCE_SERVER is not set\n");
    return 1;
  }
  const Value list = Parse(Program({program, "--list"}).Read('\0'));
  for (bool futures : {false, true}) {
    for (const Value& c : ItemsAt(list, "cases")) {
      testing::RegisterTest(futures ? "Futures" : "Waiting", StringAt(c, "name").c_str(), nullptr, nullptr, __FILE__, __LINE__,
                            [=]() -> Suite* { return new Case(c, program, futures); });
    }
    testing::RegisterTest(futures ? "Futures" : "Waiting", "many answers", nullptr, nullptr, __FILE__, __LINE__,
                          [=]() -> Suite* { return new Case({}, program, futures); });
  }
  return RUN_ALL_TESTS();
}
