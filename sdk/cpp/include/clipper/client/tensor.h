// SPDX-License-Identifier: Apache-2.0
// Tensors from and to arrays.
#ifndef CLIPPER_CLIENT_TENSOR_H_
#define CLIPPER_CLIENT_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "clipper/client/error.h"
#include "clipper/v1/tensor.pb.h"

namespace clipper::client {

// The length of each dimension; {} is a scalar.
using Shape = std::vector<std::int64_t>;

// The type of a tensor with elements T: bool, integers, float, double, std::string.
template <typename T>
constexpr v1::DataType DataTypeOf() {
  if constexpr (std::is_same_v<T, bool>) return v1::DATA_TYPE_BOOL;
  if constexpr (std::is_same_v<T, float>) return v1::DATA_TYPE_FLOAT32;
  if constexpr (std::is_same_v<T, double>) return v1::DATA_TYPE_FLOAT64;
  if constexpr (std::is_same_v<T, std::string>) return v1::DATA_TYPE_STRING;
  if constexpr (std::is_integral_v<T> && std::is_unsigned_v<T>) {
    if constexpr (sizeof(T) == 1) return v1::DATA_TYPE_UINT8;
    if constexpr (sizeof(T) == 2) return v1::DATA_TYPE_UINT16;
    if constexpr (sizeof(T) == 4) return v1::DATA_TYPE_UINT32;
    if constexpr (sizeof(T) == 8) return v1::DATA_TYPE_UINT64;
  }
  if constexpr (std::is_integral_v<T>) {
    if constexpr (sizeof(T) == 1) return v1::DATA_TYPE_INT8;
    if constexpr (sizeof(T) == 2) return v1::DATA_TYPE_INT16;
    if constexpr (sizeof(T) == 4) return v1::DATA_TYPE_INT32;
    if constexpr (sizeof(T) == 8) return v1::DATA_TYPE_INT64;
  }
  return v1::DATA_TYPE_UNSPECIFIED;
}

namespace internal {
Error WrongType(v1::DataType have, v1::DataType want);
Error WrongSize(const v1::Tensor& tensor);
// The product of a shape; -1 when there is none.
std::int64_t Count(const v1::Tensor& tensor);
v1::Tensor Empty(v1::DataType type, const Shape& shape);
}  // namespace internal

// A tensor of `size` elements, row-major, which are copied. The product of the shape must be their number, which the
// server checks.
template <typename T>
v1::Tensor MakeTensor(const T* elements, std::size_t size, const Shape& shape) {
  static_assert(DataTypeOf<T>() != v1::DATA_TYPE_UNSPECIFIED, "no tensor has elements of this type");
  v1::Tensor tensor = internal::Empty(DataTypeOf<T>(), shape);
  if constexpr (std::is_same_v<T, std::string>) {
    tensor.mutable_strings()->Add(elements, elements + size);
  } else {
    // The hosts that gRPC runs on are little-endian, as tensors are.
    tensor.set_data(reinterpret_cast<const char*>(elements), size * sizeof(T));
  }
  return tensor;
}

// A tensor of a vector; a list, unless there is a shape.
template <typename T>
v1::Tensor MakeTensor(const std::vector<T>& elements, const Shape& shape) {
  if constexpr (std::is_same_v<T, bool>) {
    v1::Tensor tensor = internal::Empty(v1::DATA_TYPE_BOOL, shape);
    tensor.set_data(std::string(elements.begin(), elements.end()));
    return tensor;
  } else {
    return MakeTensor(elements.data(), elements.size(), shape);
  }
}
template <typename T>
v1::Tensor MakeTensor(const std::vector<T>& elements) {
  return MakeTensor(elements, {static_cast<std::int64_t>(elements.size())});
}

// A tensor of one element and no dimension.
template <typename T>
v1::Tensor Scalar(const T& element) {
  return MakeTensor(&element, 1, {});
}

// A tensor of two dimensions. Rows must not be empty and have the same length.
template <typename T>
Result<v1::Tensor> Matrix(const std::vector<std::vector<T>>& rows) {
  if (rows.empty() || rows[0].empty()) return Error{Code::kInvalidArgument, reason::kInvalidField, "the matrix has no elements", {}, {}};
  std::vector<T> elements;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].size() != rows[0].size()) {
      return Error{Code::kInvalidArgument, reason::kInvalidField,
                   "row " + std::to_string(i) + " has " + std::to_string(rows[i].size()) + " elements, the first has " +
                       std::to_string(rows[0].size()),
                   {}, {}};
    }
    elements.insert(elements.end(), rows[i].begin(), rows[i].end());
  }
  return MakeTensor(elements, {static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rows[0].size())});
}

// Tensors of byte strings, and of 16-bit floats, rounded to even.
v1::Tensor MakeBytes(const std::vector<std::string>& elements, const Shape& shape);
v1::Tensor MakeFloat16(const std::vector<float>& elements, const Shape& shape);
v1::Tensor MakeBfloat16(const std::vector<float>& elements, const Shape& shape);

// Gives a tensor a name, for applications with several inputs.
v1::Tensor Named(std::string name, v1::Tensor tensor);

namespace internal {
Result<std::vector<float>> Widen(const v1::Tensor& tensor);
}  // namespace internal

// The elements of a tensor, row-major. T must be the tensor's type; float also reads 16-bit floats, and std::string
// also byte strings.
template <typename T>
Result<std::vector<T>> Values(const v1::Tensor& tensor) {
  const v1::DataType have = tensor.data_type();
  const std::int64_t count = internal::Count(tensor);
  if constexpr (std::is_same_v<T, std::string>) {
    if (have != v1::DATA_TYPE_STRING && have != v1::DATA_TYPE_BYTES) return internal::WrongType(have, v1::DATA_TYPE_STRING);
    const auto& elements = have == v1::DATA_TYPE_STRING ? tensor.strings() : tensor.byte_strings();
    if (elements.size() != count) return internal::WrongSize(tensor);
    return std::vector<T>(elements.begin(), elements.end());
  } else {
    if constexpr (std::is_same_v<T, float>) {
      if (have == v1::DATA_TYPE_FLOAT16 || have == v1::DATA_TYPE_BFLOAT16) return internal::Widen(tensor);
    }
    if (have != DataTypeOf<T>()) return internal::WrongType(have, DataTypeOf<T>());
    // A count that is too large for the data is found without a product that may be too large too.
    const std::string& data = tensor.data();
    if (data.size() % sizeof(T) != 0 || static_cast<std::int64_t>(data.size() / sizeof(T)) != count) return internal::WrongSize(tensor);
    if constexpr (std::is_same_v<T, bool>) {
      std::vector<bool> out;
      for (char c : data) out.push_back(c != 0);
      return out;
    } else {
      std::vector<T> out(data.size() / sizeof(T));
      if (!out.empty()) std::memcpy(out.data(), data.data(), data.size());
      return out;
    }
  }
}

// The only element of a tensor.
template <typename T>
Result<T> Value(const v1::Tensor& tensor) {
  Result<std::vector<T>> all = Values<T>(tensor);
  if (!all) return all.error();
  if (all->size() != 1) {
    return Error{Code::kInvalidArgument, reason::kInvalidField, "the tensor has " + std::to_string(all->size()) + " elements, not one", {}, {}};
  }
  return T((*all)[0]);
}

}  // namespace clipper::client

#endif  // CLIPPER_CLIENT_TENSOR_H_
