// SPDX-License-Identifier: Apache-2.0
#include "errors.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <typeinfo>

#include <cxxabi.h>

#include "clipper/container.h"

namespace clipper::internal {
namespace {

// A message travels with each answer and ends in front of people; no framework needs more.
constexpr std::size_t kMaxMessage = 2000;

// The length of the character at the beginning, 0 if there is none in UTF-8.
std::size_t Character(std::string_view text) {
  auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<std::uint8_t>(text[i]) : 0u; };
  const std::uint32_t first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t size = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  for (std::size_t i = 1; i < size; i++) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const std::uint32_t second = byte(1);
  const bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool surrogate = first == 0xED && second >= 0xA0;
  const bool too_large = first == 0xF4 && second >= 0x90;
  return overlong || surrogate || too_large ? 0 : size;
}

// The words in UTF-8, whatever they were in, and not too many.
std::string Readable(std::string_view text) {
  std::string readable;
  while (!text.empty()) {
    const std::size_t size = Character(text);
    if (readable.size() + size > kMaxMessage) break;
    readable += size == 0 ? "?" : text.substr(0, size);
    text.remove_prefix(size == 0 ? 1 : size);
  }
  return readable;
}

v1::Error Message(grpc::StatusCode code, v1::ErrorReason reason, const std::string& field, std::string_view text) {
  v1::Error message;
  message.set_code(static_cast<std::uint32_t>(code));
  message.set_reason(reason);
  message.set_field(field);
  message.set_message(Readable(text));
  return message;
}

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t size = Character(text);
    if (size == 0) return false;
    text.remove_prefix(size);
  }
  return true;
}

std::string Describe(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    const std::type_info* type = abi::__cxa_current_exception_type();
    if (type == nullptr) return "an exception of a foreign language";
    std::unique_ptr<char, decltype(&std::free)> name(abi::__cxa_demangle(type->name(), nullptr, nullptr, nullptr), &std::free);
    return std::string("an exception of type ") + (name != nullptr ? name.get() : type->name());
  }
}

v1::Error ToMessage(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const BatchError& e) {
    return Message(e.code, e.reason, e.field, e.what());
  } catch (const InputError& e) {
    return Message(grpc::INVALID_ARGUMENT, v1::ERROR_REASON_MODEL_FAILED, {}, e.what());
  } catch (...) {
    return ToMessage(Describe(error));
  }
}

v1::Error ToMessage(const std::string& why) { return Message(grpc::UNKNOWN, v1::ERROR_REASON_MODEL_FAILED, {}, why); }

}  // namespace clipper::internal
