// SPDX-License-Identifier: Apache-2.0
#include "clipper/tensor.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <new>

#include "errors.h"

namespace clipper {
namespace {

using internal::BadOutput;
using internal::BatchError;

struct Type {
  const char* name;
  std::size_t size;
};
constexpr std::array<Type, 16> kTypes = {{{"any", 0},     {"bool", 1},   {"uint8", 1},   {"uint16", 2}, {"uint32", 4},  {"uint64", 8},
                                          {"int8", 1},    {"int16", 2},  {"int32", 4},   {"int64", 8},  {"float16", 2}, {"bfloat16", 2},
                                          {"float32", 4}, {"float64", 8}, {"string", 0}, {"bytes", 0}}};

// As much as any vector instruction or framework wants.
constexpr std::size_t kAlignment = 64;

std::shared_ptr<void> Memory(std::size_t bytes) {
  constexpr std::align_val_t alignment{kAlignment};
  return {::operator new(std::max<std::size_t>(bytes, 1), alignment), [](void* p) { ::operator delete(p, alignment); }};
}

std::string Named(std::string_view what, std::string_view name) {
  return name.empty() ? "the " + std::string(what) + " " : "the " + std::string(what) + " '" + std::string(name) + "' ";
}

}  // namespace

const char* Name(DataType type) {
  const auto i = static_cast<std::size_t>(type);
  return i < kTypes.size() ? kTypes[i].name : "unknown";
}

std::size_t SizeOf(DataType type) {
  const auto i = static_cast<std::size_t>(type);
  return i < kTypes.size() ? kTypes[i].size : 0;
}

void Tensor::Require(DataType type) const {
  if (type_ == type) return;
  throw BatchError(grpc::INVALID_ARGUMENT, v1::ERROR_REASON_INPUT_TYPE,
                   Named("input", name_) + "has elements of type " + Name(type_) + "; the model takes " + Name(type));
}

Span<const std::string_view> Tensor::strings() const {
  if (type_ != DataType::kBytes) Require(DataType::kString);
  return strings_;
}

Span<const std::int64_t> Tensor::shape() const {
  if (ragged()) {
    throw BatchError(grpc::INVALID_ARGUMENT, v1::ERROR_REASON_INPUT_SHAPE,
                     Named("input", name_) + "has rows of different shapes; the model takes rows of one shape");
  }
  return dims().subspan(1, dims_.size() - 1);
}

const Tensor& Batch::input(std::string_view name) const {
  for (const Tensor& tensor : inputs_) {
    if (tensor.name() == name) return tensor;
  }
  throw internal::Invalid("the model takes an input '" + std::string(name) + "', which the batch does not have", "inputs");
}

void* Result::Allocate(DataType type, const Shape& shape, std::string name) {
  if (SizeOf(type) == 0) throw BadOutput(Named("output", name) + "is of type " + Name(type) + ", which has no fixed size");
  const std::size_t size = rows_ * Product(shape);
  std::shared_ptr<void> memory = Memory(size * SizeOf(type));
  std::memset(memory.get(), 0, size * SizeOf(type));
  AddElements(type, memory.get(), size, shape, {}, memory, std::move(name));
  return memory.get();
}

void Result::Add(DataType type, Span<const std::int64_t> dims, const void* data, std::shared_ptr<const void> owner, std::string name) {
  if (dims.empty() || dims[0] != static_cast<std::int64_t>(rows_)) {
    throw BadOutput(Named("output", name) + (dims.empty() ? "is a scalar" : "has " + std::to_string(dims[0]) + " rows") + " for a batch of " +
                    std::to_string(rows_));
  }
  if (SizeOf(type) == 0) throw BadOutput(Named("output", name) + "is of type " + Name(type) + ", which has no fixed size");
  Shape shape(dims.begin() + 1, dims.end());
  const std::size_t size = rows_ * Product(shape);
  if (owner == nullptr) {
    std::shared_ptr<void> copy = Memory(size * SizeOf(type));
    if (size != 0) std::memcpy(copy.get(), data, size * SizeOf(type));
    data = copy.get();
    owner = std::move(copy);
  }
  AddElements(type, data, size, std::move(shape), {}, std::move(owner), std::move(name));
}

void Result::Fail(std::size_t row, std::string why) {
  if (row >= rows_) throw BadOutput("row " + std::to_string(row) + " failed, of a batch of " + std::to_string(rows_));
  failed_.emplace(row, std::move(why));
}

std::size_t Result::Product(const Shape& shape) {
  std::int64_t product = 1;
  for (std::int64_t dim : shape) {
    if (dim < 0) throw BadOutput("an output has a dimension of " + std::to_string(dim));
    // What is too large for memory anyway must not wrap around to what is not.
    if (__builtin_mul_overflow(product, dim, &product) || product > std::numeric_limits<std::int32_t>::max()) throw std::bad_alloc();
  }
  return static_cast<std::size_t>(product);
}

void Result::AddElements(DataType type, const void* data, std::size_t size, Shape shape, std::vector<Shape> row_shapes,
                         std::shared_ptr<const void> owner, std::string name) {
  Check(name, size, shape, row_shapes);
  outputs_.push_back({std::move(name), type, std::move(shape), std::move(row_shapes), data, size * SizeOf(type), std::move(owner), {}});
}

void Result::AddStrings(DataType type, std::vector<std::string> values, Shape shape, std::vector<Shape> row_shapes, std::string name) {
  Check(name, values.size(), shape, row_shapes);
  if (type == DataType::kString && !std::all_of(values.begin(), values.end(), internal::IsUtf8)) {
    throw BadOutput(Named("output", name) + "has a string that is not UTF-8; AddBytes takes any bytes");
  }
  outputs_.push_back({std::move(name), type, std::move(shape), std::move(row_shapes), nullptr, 0, nullptr, std::move(values)});
}

void Result::Check(const std::string& name, std::size_t size, const Shape& shape, const std::vector<Shape>& row_shapes) const {
  if (!internal::IsUtf8(name)) throw BadOutput("an output has a name that is not UTF-8");
  for (const Output& other : outputs_) {
    if (name.empty() || other.name.empty() || other.name == name) throw BadOutput("of several outputs each has a name of its own");
  }
  if (!row_shapes.empty() && row_shapes.size() != rows_) {
    throw BadOutput(Named("output", name) + "has " + std::to_string(row_shapes.size()) + " rows for a batch of " + std::to_string(rows_));
  }
  std::size_t expected = row_shapes.empty() ? rows_ * Product(shape) : 0;
  for (const Shape& row : row_shapes) expected += Product(row);
  if (size != expected) {
    throw BadOutput(Named("output", name) + "has " + std::to_string(size) + " elements; " + std::to_string(rows_) + " rows of its shape have " +
                    std::to_string(expected));
  }
}

}  // namespace clipper
