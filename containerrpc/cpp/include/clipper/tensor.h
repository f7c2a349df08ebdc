// SPDX-License-Identifier: Apache-2.0
// Batches of tensors, as a model sees them.
#ifndef CLIPPER_TENSOR_H_
#define CLIPPER_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace clipper {

namespace internal {
class Decoder;
class Encoder;
}  // namespace internal

// The type of the elements of a tensor; the numbers are those of clipper.v1.DataType.
enum class DataType : int {
  kAny = 0,
  kBool = 1,
  kUint8 = 2,
  kUint16 = 3,
  kUint32 = 4,
  kUint64 = 5,
  kInt8 = 6,
  kInt16 = 7,
  kInt32 = 8,
  kInt64 = 9,
  kFloat16 = 10,
  kBfloat16 = 11,
  kFloat32 = 12,
  kFloat64 = 13,
  kString = 14,
  kBytes = 15,
};

// "float32" and the like.
const char* Name(DataType type);

// Bytes of one element; 0 for kAny, kString and kBytes.
std::size_t SizeOf(DataType type);

// IEEE 754 binary16, which C++17 has no type for, by its bits.
struct Float16 {
  std::uint16_t bits;
};

// The upper half of a binary32, by its bits.
struct Bfloat16 {
  std::uint16_t bits;
};

// The DataType of a C++ type.
template <typename T>
constexpr DataType TypeOf() {
  if constexpr (std::is_same_v<T, bool>) return DataType::kBool;
  if constexpr (std::is_same_v<T, std::uint8_t>) return DataType::kUint8;
  if constexpr (std::is_same_v<T, std::uint16_t>) return DataType::kUint16;
  if constexpr (std::is_same_v<T, std::uint32_t>) return DataType::kUint32;
  if constexpr (std::is_same_v<T, std::uint64_t>) return DataType::kUint64;
  if constexpr (std::is_same_v<T, std::int8_t>) return DataType::kInt8;
  if constexpr (std::is_same_v<T, std::int16_t>) return DataType::kInt16;
  if constexpr (std::is_same_v<T, std::int32_t>) return DataType::kInt32;
  if constexpr (std::is_same_v<T, std::int64_t>) return DataType::kInt64;
  if constexpr (std::is_same_v<T, Float16>) return DataType::kFloat16;
  if constexpr (std::is_same_v<T, Bfloat16>) return DataType::kBfloat16;
  if constexpr (std::is_same_v<T, float>) return DataType::kFloat32;
  if constexpr (std::is_same_v<T, double>) return DataType::kFloat64;
  return DataType::kAny;
}

// A view of consecutive values, which belong to somebody else.
template <typename T>
class Span {
 public:
  constexpr Span() = default;
  constexpr Span(T* data, std::size_t size) : data_(data), size_(size) {}
  template <typename U, typename = std::enable_if_t<std::is_same_v<const U, T>>>
  constexpr Span(Span<U> other) : data_(other.data()), size_(other.size()) {}
  template <typename U, typename = std::enable_if_t<std::is_same_v<const U, T>>>
  Span(const std::vector<U>& values) : data_(values.data()), size_(values.size()) {}

  constexpr T* data() const { return data_; }
  constexpr std::size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr T& operator[](std::size_t i) const { return data_[i]; }
  constexpr T* begin() const { return data_; }
  constexpr T* end() const { return data_ + size_; }
  // The count values from the given one on; both must lie within.
  constexpr Span subspan(std::size_t first, std::size_t count) const { return Span(data_ + first, count); }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

// The length of each dimension of one row, without the batch dimension; {} is a scalar.
using Shape = std::vector<std::int64_t>;

// What one input or output of one row looks like.
struct Spec {
  DataType type = DataType::kAny;  // kAny accepts any
  Shape shape = {};                // -1 accepts any length
  std::string name = {};           // needed when there are several
  bool any_shape = false;          // accepts any shape; `shape` is empty
};

// The same input of all rows of a batch. It is read-only and a view of what was received: neither it
// nor what it returns may be kept after Predict has returned, unless its owner() is kept too.
class Tensor {
 public:
  // Empty when the caller gave it none.
  std::string_view name() const { return name_; }
  DataType type() const { return type_; }
  std::size_t rows() const { return static_cast<std::size_t>(dims_[0]); }

  // Whether the rows differ in shape. Then only row_shape() and row() tell which element is where.
  bool ragged() const { return !row_shapes_.empty(); }
  // [rows, shape...], as frameworks want it; [rows] when ragged.
  Span<const std::int64_t> dims() const { return dims_; }
  // The shape of every row; of a ragged tensor it is an error of the batch (INPUT_SHAPE).
  Span<const std::int64_t> shape() const;
  // The shape of one row.
  Span<const std::int64_t> row_shape(std::size_t row) const { return ragged() ? Span<const std::int64_t>(row_shapes_[row]) : shape(); }

  // The number of elements of all rows, and of one.
  std::size_t size() const { return size_; }
  std::size_t row_size(std::size_t row) const { return ragged() ? ends_[row + 1] - ends_[row] : size_ / rows(); }

  // All elements: row after row, each row-major. T must be the type of the elements, or it is an
  // error of the batch (INPUT_TYPE): float for kFloat32, std::string_view for kString and kBytes.
  template <typename T>
  Span<const T> data() const {
    if constexpr (std::is_same_v<T, std::string_view>) {
      return strings();
    } else {
      static_assert(TypeOf<T>() != DataType::kAny, "no tensor has elements of this type");
      Require(TypeOf<T>());
      return {static_cast<const T*>(data_), size_};
    }
  }
  // The elements of one row.
  template <typename T>
  Span<const T> row(std::size_t row) const {
    return data<T>().subspan(ragged() ? ends_[row] : row * row_size(row), row_size(row));
  }

  // The elements of a type of fixed size, whatever it is: little-endian, aligned to the type's size;
  // nullptr for text and byte strings.
  const void* raw() const { return data_; }
  std::size_t raw_bytes() const { return size_ * SizeOf(type_); }
  // Keeps the elements beyond Predict, for a framework that may hold on to them; they are aligned to 64 bytes
  // then. nullptr when they are in memory of the transport, as those of a small batch are.
  const std::shared_ptr<const void>& owner() const { return owner_; }

 private:
  friend class internal::Decoder;
  void Require(DataType type) const;
  Span<const std::string_view> strings() const;

  std::string_view name_;
  DataType type_ = DataType::kAny;
  std::vector<std::int64_t> dims_;
  std::vector<Shape> row_shapes_;
  std::vector<std::size_t> ends_;  // of a ragged tensor: where each row begins, and the end
  const void* data_ = nullptr;
  std::shared_ptr<const void> owner_;
  std::size_t size_ = 0;
  std::vector<std::string_view> strings_;
};

// The rows to predict. When the model declares inputs, a batch has these and no others, in their
// order, of their types and shapes: any other is refused before Predict sees it.
class Batch {
 public:
  // At least 1.
  std::size_t rows() const { return rows_; }
  // The number of inputs, at least 1.
  std::size_t size() const { return inputs_.size(); }
  const Tensor& input(std::size_t i = 0) const { return inputs_[i]; }
  // The input of this name; it is an error of the batch when there is none (INVALID_FIELD).
  const Tensor& input(std::string_view name) const;
  std::vector<Tensor>::const_iterator begin() const { return inputs_.begin(); }
  std::vector<Tensor>::const_iterator end() const { return inputs_.end(); }

 private:
  friend class internal::Decoder;
  std::size_t rows_ = 0;
  std::vector<Tensor> inputs_;
};

// The answer to a batch: one entry for each output, each with all rows in the order of the batch.
// What cannot be an answer (a wrong number of elements) is an error of the batch (MODEL_PROTOCOL).
class Result {
 public:
  explicit Result(std::size_t rows) : rows_(rows) {}
  Result(Result&&) = default;
  Result& operator=(Result&&) = default;

  // Adds an output of elements that are 0, rows x shape of them, and returns them to be set. They are
  // sent without a copy. The span is valid until Predict returns.
  template <typename T>
  Span<T> Allocate(const Shape& shape = {}, std::string name = {}) {
    static_assert(TypeOf<T>() != DataType::kAny, "no tensor has elements of this type");
    std::size_t size = rows_ * Product(shape);
    return {static_cast<T*>(Allocate(TypeOf<T>(), shape, std::move(name))), size};
  }
  // The same for a type that is known when the program runs; the memory is aligned for it.
  void* Allocate(DataType type, const Shape& shape, std::string name = {});

  // Adds an output of rows x shape elements: numbers, or strings, which must be UTF-8. The vector is
  // kept and sent as it is.
  template <typename T>
  void Add(std::vector<T> values, Shape shape = {}, std::string name = {}) {
    if constexpr (std::is_same_v<T, std::string>) {
      AddStrings(DataType::kString, std::move(values), std::move(shape), {}, std::move(name));
    } else {
      static_assert(TypeOf<T>() != DataType::kAny, "no tensor has elements of this type");
      static_assert(!std::is_same_v<T, bool>, "a vector of bool is no array: use Allocate<bool>");
      auto kept = std::make_shared<const std::vector<T>>(std::move(values));
      AddElements(TypeOf<T>(), kept->data(), kept->size(), std::move(shape), {}, kept, std::move(name));
    }
  }
  // Adds byte strings.
  void AddBytes(std::vector<std::string> values, Shape shape = {}, std::string name = {}) {
    AddStrings(DataType::kBytes, std::move(values), std::move(shape), {}, std::move(name));
  }
  // Adds an array of a framework: dims is [rows, shape...], data its elements, row-major. The owner keeps
  // them and is released when the answer has been sent, on any thread; nothing is copied. With no owner they are copied.
  void Add(DataType type, Span<const std::int64_t> dims, const void* data, std::shared_ptr<const void> owner, std::string name = {});

  // Adds an output whose rows differ in length: one vector for each row.
  template <typename T>
  void AddRagged(const std::vector<std::vector<T>>& rows, std::string name = {}) {
    std::vector<T> values;
    std::vector<Shape> shapes;
    for (const std::vector<T>& row : rows) {
      values.insert(values.end(), row.begin(), row.end());
      shapes.push_back({static_cast<std::int64_t>(row.size())});
    }
    AddRagged(std::move(values), std::move(shapes), std::move(name));
  }
  // Adds an output of rows of any shapes, one for each row; the elements follow each other.
  template <typename T>
  void AddRagged(std::vector<T> values, std::vector<Shape> shapes, std::string name = {}) {
    if constexpr (std::is_same_v<T, std::string>) {
      AddStrings(DataType::kString, std::move(values), {}, std::move(shapes), std::move(name));
    } else {
      static_assert(TypeOf<T>() != DataType::kAny, "no tensor has elements of this type");
      auto kept = std::make_shared<const std::vector<T>>(std::move(values));
      AddElements(TypeOf<T>(), kept->data(), kept->size(), {}, std::move(shapes), kept, std::move(name));
    }
  }

  // Says that a row failed, and why. The row keeps its place in the outputs, with any value.
  void Fail(std::size_t row, std::string why);

  std::size_t rows() const { return rows_; }

 private:
  friend class internal::Encoder;

  struct Output {
    std::string name;
    DataType type;
    Shape shape;
    std::vector<Shape> row_shapes;
    const void* data;
    std::size_t bytes;
    std::shared_ptr<const void> owner;
    std::vector<std::string> strings;
  };

  static std::size_t Product(const Shape& shape);
  void AddElements(DataType type, const void* data, std::size_t size, Shape shape, std::vector<Shape> row_shapes,
                   std::shared_ptr<const void> owner, std::string name);
  void AddStrings(DataType type, std::vector<std::string> values, Shape shape, std::vector<Shape> row_shapes, std::string name);
  void Check(const std::string& name, std::size_t size, const Shape& shape, const std::vector<Shape>& row_shapes) const;

  std::size_t rows_;
  std::vector<Output> outputs_;
  std::map<std::size_t, std::string> failed_;
};

}  // namespace clipper

#endif  // CLIPPER_TENSOR_H_
