// SPDX-License-Identifier: Apache-2.0
#include "clipper/client/error.h"

#include "status.h"
#include "clipper_client_status.pb.h"

namespace clipper::client {
namespace {

std::chrono::milliseconds Milliseconds(const google::protobuf::Duration& d) {
  return std::chrono::seconds(d.seconds()) + std::chrono::milliseconds(d.nanos() / 1'000'000);
}

Error ErrorOf(const v1::Error& e) {
  Error error{static_cast<Code>(e.code()), {}, e.message(), e.field(), {}};
  if (e.reason() != v1::ERROR_REASON_UNSPECIFIED) {
    const std::string& name = v1::ErrorReason_Name(e.reason());
    error.reason = name.empty() ? std::to_string(e.reason()) : name.substr(std::string_view("ERROR_REASON_").size());
  }
  if (e.has_retry_after()) error.retry_after = Milliseconds(e.retry_after());
  return error;
}

template <typename Response, typename Item>
Result<Response> ItemResultOf(Item& item) {
  if (item.has_error()) return ErrorOf(item.error());
  if (item.has_response()) return std::move(*item.mutable_response());
  return Error{Code::kInternal, reason::kInternal, "the server has sent a result without content", {}, {}};
}

}  // namespace

const char* Name(Code code) {
  static constexpr const char* kNames[] = {
      "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
      "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
      "UNAUTHENTICATED"};
  const auto i = static_cast<std::size_t>(code);
  return i < std::size(kNames) ? kNames[i] : "UNKNOWN";
}

std::string Error::ToString() const {
  std::string text = (reason.empty() ? Name(code) : reason) + ": " + message;
  if (!field.empty() && message.find(field) == std::string::npos) text += " (" + field + ")";
  return text;
}

Result<v1::QueryResponse> ItemResult(v1::QueryResult result) { return ItemResultOf<v1::QueryResponse>(result); }
Result<v1::FeedbackResponse> ItemResult(v1::FeedbackResult result) { return ItemResultOf<v1::FeedbackResponse>(result); }

namespace internal {

Error Invalid(std::string message) { return {Code::kInvalidArgument, reason::kInvalidField, std::move(message), {}, {}}; }

// A call that was not answered has no details: then the code says the reason.
Error ErrorOf(const grpc::Status& status) {
  Error error{static_cast<Code>(status.error_code()), {}, status.error_message(), {}, {}};
  if (error.code == Code::kDeadlineExceeded) error.reason = reason::kDeadline;
  if (error.code == Code::kUnavailable) error.reason = reason::kUnavailable;
  Status details;
  if (!details.ParseFromString(status.error_details())) return error;
  // The names on the wire are those of the originals.
  for (const google::protobuf::Any& detail : details.details()) {
    if (detail.type_url() == "type.googleapis.com/google.rpc.ErrorInfo") {
      ErrorInfo info;
      if (!info.ParseFromString(detail.value()) || info.domain() != "clipper.dev") continue;
      error.reason = info.reason();
      if (auto field = info.metadata().find("field"); field != info.metadata().end()) error.field = field->second;
    } else if (detail.type_url() == "type.googleapis.com/google.rpc.RetryInfo") {
      RetryInfo info;
      if (info.ParseFromString(detail.value()) && info.has_retry_delay()) error.retry_after = Milliseconds(info.retry_delay());
    }
  }
  return error;
}

}  // namespace internal
}  // namespace clipper::client
