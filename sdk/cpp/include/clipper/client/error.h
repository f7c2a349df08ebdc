// SPDX-License-Identifier: Apache-2.0
// Errors and results. Nothing here throws.
#ifndef CLIPPER_CLIENT_ERROR_H_
#define CLIPPER_CLIENT_ERROR_H_

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "clipper/v1/error.pb.h"
#include "clipper/v1/feedback_service.pb.h"
#include "clipper/v1/query_service.pb.h"

namespace clipper::client {

// The class of an error; the numbers are those of gRPC.
enum class Code : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

// "INVALID_ARGUMENT" and the like.
const char* Name(Code code);

// The reasons of errors. What to do about each is said in docs/errors.md.
namespace reason {
inline constexpr char kMalformedJson[] = "MALFORMED_JSON";
inline constexpr char kInvalidField[] = "INVALID_FIELD";
inline constexpr char kMissingField[] = "MISSING_FIELD";
inline constexpr char kInputType[] = "INPUT_TYPE";
inline constexpr char kInputShape[] = "INPUT_SHAPE";
inline constexpr char kInputValue[] = "INPUT_VALUE";
inline constexpr char kTooLarge[] = "TOO_LARGE";
inline constexpr char kApplicationNotFound[] = "APPLICATION_NOT_FOUND";
inline constexpr char kApplicationExists[] = "APPLICATION_EXISTS";
inline constexpr char kModelNotFound[] = "MODEL_NOT_FOUND";
inline constexpr char kVersionNotFound[] = "VERSION_NOT_FOUND";
inline constexpr char kVersionExists[] = "VERSION_EXISTS";
inline constexpr char kInUse[] = "IN_USE";
inline constexpr char kSignatureMismatch[] = "SIGNATURE_MISMATCH";
inline constexpr char kPolicyInvalid[] = "POLICY_INVALID";
inline constexpr char kConflict[] = "CONFLICT";
inline constexpr char kFeedbackIdInvalid[] = "FEEDBACK_ID_INVALID";
inline constexpr char kFeedbackIdExpired[] = "FEEDBACK_ID_EXPIRED";
inline constexpr char kFeedbackIdApplication[] = "FEEDBACK_ID_APPLICATION";
inline constexpr char kTruthInvalid[] = "TRUTH_INVALID";
inline constexpr char kDeadline[] = "DEADLINE";
inline constexpr char kOverloaded[] = "OVERLOADED";
inline constexpr char kUnavailable[] = "UNAVAILABLE";
inline constexpr char kStoreUnavailable[] = "STORE_UNAVAILABLE";
inline constexpr char kModelFailed[] = "MODEL_FAILED";
inline constexpr char kModelProtocol[] = "MODEL_PROTOCOL";
inline constexpr char kInternal[] = "INTERNAL";
inline constexpr char kUnknownMethod[] = "UNKNOWN_METHOD";
inline constexpr char kContextNotFound[] = "CONTEXT_NOT_FOUND";
inline constexpr char kLaunchFailed[] = "LAUNCH_FAILED";
inline constexpr char kPolicyFailed[] = "POLICY_FAILED";
inline constexpr char kNoCanary[] = "NO_CANARY";
inline constexpr char kUnauthenticated[] = "UNAUTHENTICATED";
inline constexpr char kPermissionDenied[] = "PERMISSION_DENIED";
inline constexpr char kRateLimited[] = "RATE_LIMITED";
inline constexpr char kKeyNotFound[] = "KEY_NOT_FOUND";
}  // namespace reason

// Why a call, or one item of a batch or stream, failed.
struct Error {
  Code code = Code::kUnknown;
  // The cause, for programs to test; see namespace reason. Empty when the server is not Clipper. A newer
  // server may give reasons that are not known here.
  std::string reason;
  std::string message;  // what is wrong, for people
  std::string field;    // the field of the request at fault, if any
  // The time after which a repetition may succeed, where it is known.
  std::optional<std::chrono::milliseconds> retry_after;

  // All of it in one line.
  std::string ToString() const;
};

// A value, or why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : content_(std::move(value)) {}
  Result(Error error) : content_(std::move(error)) {}

  bool ok() const { return content_.index() == 0; }
  explicit operator bool() const { return ok(); }

  // The value. To ask for it when there is none ends the program.
  T& operator*() & { return *Require(); }
  const T& operator*() const& { return *const_cast<Result*>(this)->Require(); }
  T&& operator*() && { return std::move(*Require()); }
  T* operator->() { return Require(); }
  const T* operator->() const { return const_cast<Result*>(this)->Require(); }

  // The error; one without a reason and with Code::kOk when there is a value.
  const Error& error() const {
    static const Error none{Code::kOk, {}, {}, {}, {}};
    const Error* error = std::get_if<1>(&content_);
    return error ? *error : none;
  }

 private:
  T* Require() {
    if (T* value = std::get_if<0>(&content_)) return value;
    std::fprintf(stderr, "clipper: there is no value: %s\n", error().ToString().c_str());
    std::abort();
  }

  std::variant<T, Error> content_;
};

// The answer or the error of one query of a batch, and of one feedback.
Result<v1::QueryResponse> ItemResult(v1::QueryResult result);
Result<v1::FeedbackResponse> ItemResult(v1::FeedbackResult result);

}  // namespace clipper::client

#endif  // CLIPPER_CLIENT_ERROR_H_
