// SPDX-License-Identifier: Apache-2.0
#include "clipper/client/tensor.h"

#include <cmath>
#include <limits>

namespace clipper::client {
namespace {

// The smallest normal binary16 is 2^-14; below it, its steps are 2^-24.
constexpr float kHalfMin = 1.0f / (1 << 14);
constexpr float kHalfSteps = 1 << 24;

std::uint16_t ToFloat16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const std::uint16_t sign = bits >> 16 & 0x8000;
  const float a = std::fabs(x);
  if (std::isnan(a)) return sign | 0x7e00;
  if (a >= 65520) return sign | 0x7c00;  // halfway from the largest, 65504, to the next
  // What rounds up to 1024 steps is the smallest normal one.
  if (a < kHalfMin) return sign | static_cast<std::uint16_t>(std::nearbyint(a * kHalfSteps));
  int exponent;
  const float fraction = std::frexp(a, &exponent);  // in [0.5, 1)
  // The leading bit of the steps counts the exponent up by one.
  return sign | static_cast<std::uint16_t>(((exponent + 13) << 10) + static_cast<int>(std::nearbyint(fraction * 2048)));
}

float FromFloat16(std::uint16_t bits) {
  const float sign = bits & 0x8000 ? -1 : 1;
  const int exponent = bits >> 10 & 0x1f;
  const int fraction = bits & 0x3ff;
  if (exponent == 0) return sign * static_cast<float>(fraction) / kHalfSteps;
  if (exponent == 0x1f) return fraction ? std::numeric_limits<float>::quiet_NaN() : sign * std::numeric_limits<float>::infinity();
  return sign * std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
}

std::uint16_t ToBfloat16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (std::isnan(x)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);  // it must stay one
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

v1::Tensor Narrow(v1::DataType type, std::uint16_t (*narrow)(float), const std::vector<float>& elements, const Shape& shape) {
  std::vector<std::uint16_t> bits;
  bits.reserve(elements.size());
  for (float x : elements) bits.push_back(narrow(x));
  v1::Tensor tensor = MakeTensor(bits, shape);
  tensor.set_data_type(type);
  return tensor;
}

}  // namespace

namespace internal {

Error WrongType(v1::DataType have, v1::DataType want) {
  return {Code::kInvalidArgument, reason::kInputType,
          "the tensor's elements are " + v1::DataType_Name(have) + ", not " + v1::DataType_Name(want), {}, {}};
}

Error WrongSize(const v1::Tensor& tensor) {
  std::string shape;
  for (std::int64_t d : tensor.shape()) shape += (shape.empty() ? "" : " ") + std::to_string(d);
  return {Code::kInvalidArgument, reason::kInputShape, "the tensor does not have the elements that its shape [" + shape + "] says", {}, {}};
}

std::int64_t Count(const v1::Tensor& tensor) {
  std::int64_t count = 1;
  for (std::int64_t d : tensor.shape()) {
    if (d < 0 || __builtin_mul_overflow(count, d, &count)) return -1;
  }
  return count;
}

v1::Tensor Empty(v1::DataType type, const Shape& shape) {
  v1::Tensor tensor;
  tensor.set_data_type(type);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  return tensor;
}

Result<std::vector<float>> Widen(const v1::Tensor& tensor) {
  const std::string& data = tensor.data();
  if (data.size() % 2 != 0 || static_cast<std::int64_t>(data.size() / 2) != Count(tensor)) return WrongSize(tensor);
  std::vector<float> out(data.size() / 2);
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, data.data() + 2 * i, sizeof bits);
    if (tensor.data_type() == v1::DATA_TYPE_FLOAT16) {
      out[i] = FromFloat16(bits);
    } else {
      const std::uint32_t wide = std::uint32_t{bits} << 16;
      std::memcpy(&out[i], &wide, sizeof wide);
    }
  }
  return out;
}

}  // namespace internal

v1::Tensor MakeBytes(const std::vector<std::string>& elements, const Shape& shape) {
  v1::Tensor tensor = internal::Empty(v1::DATA_TYPE_BYTES, shape);
  tensor.mutable_byte_strings()->Add(elements.begin(), elements.end());
  return tensor;
}

v1::Tensor MakeFloat16(const std::vector<float>& elements, const Shape& shape) {
  return Narrow(v1::DATA_TYPE_FLOAT16, ToFloat16, elements, shape);
}

v1::Tensor MakeBfloat16(const std::vector<float>& elements, const Shape& shape) {
  return Narrow(v1::DATA_TYPE_BFLOAT16, ToBfloat16, elements, shape);
}

v1::Tensor Named(std::string name, v1::Tensor tensor) {
  tensor.set_name(std::move(name));
  return tensor;
}

}  // namespace clipper::client
