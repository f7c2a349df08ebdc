// SPDX-License-Identifier: Apache-2.0
#include "wire.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <set>
#include <utility>

#include "clipper/v1/model_container_service.pb.h"
#include "errors.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are little-endian, and used as they are"
#endif

namespace clipper::internal {
namespace {

// Wire types of protobuf, and the key of a field.
constexpr std::uint32_t kVarint = 0, kFixed64 = 1, kLength = 2, kFixed32 = 5;
constexpr std::uint64_t Key(std::uint32_t field, std::uint32_t wire_type) { return field << 3 | wire_type; }

// Below this many bytes a copy costs less than a slice of its own.
constexpr std::size_t kSmall = 1024;

// Rows without elements take no room in a message, but their answers do. Nobody means more of them than this.
constexpr std::uint32_t kMaxEmptyRows = 1 << 20;

struct Malformed {};

std::shared_ptr<void> Aligned(std::size_t bytes) {
  constexpr std::align_val_t alignment{64};
  return {::operator new(std::max<std::size_t>(bytes, 1), alignment), [](void* p) { ::operator delete(p, alignment); }};
}

// Reads protobuf fields from a chain of slices; throws Malformed.
class Reader {
 public:
  explicit Reader(Request* request) : slices_(request->received), copied_(request->copied) {
    for (const grpc::Slice& slice : slices_) left_ += slice.size();
  }

  // Whether all of the message has been read.
  bool AtEnd() const { return left_ == 0; }

  std::uint64_t Varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::uint8_t byte = Byte();
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    throw Malformed();
  }

  // The next bytes, of which a varint before gives the number: where they are, or copied if they are not in one piece.
  std::string_view Bytes() {
    std::size_t size = Length();
    if (size == 0) return {};
    Refill();
    left_ -= size;
    if (static_cast<std::size_t>(end_ - at_) >= size) {
      std::string_view bytes(reinterpret_cast<const char*>(at_), size);
      at_ += size;
      return bytes;
    }
    std::shared_ptr<void> copy = Aligned(size);
    std::string_view bytes(static_cast<const char*>(copy.get()), size);
    for (std::size_t done = 0; done < size;) {
      if (at_ == end_) NextSlice();
      const std::size_t part = std::min<std::size_t>(static_cast<std::size_t>(end_ - at_), size - done);
      std::memcpy(static_cast<char*>(copy.get()) + done, at_, part);
      at_ += part;
      done += part;
    }
    copied_.push_back(std::move(copy));
    return bytes;
  }

  // Calls field(key) for each field of the message that follows, of which a varint gives the length.
  template <typename F>
  void Message(F field) {
    const std::size_t size = Length();
    const std::size_t outer = left_ - size;
    left_ = size;
    while (!AtEnd()) field(Varint());
    left_ = outer;
  }

  // Reads a field of repeated int64, packed.
  void Integers(Shape* values) {
    const std::size_t size = Length();
    const std::size_t outer = left_ - size;
    left_ = size;
    while (!AtEnd()) values->push_back(static_cast<std::int64_t>(Varint()));
    left_ = outer;
  }

  void Skip(std::uint64_t key) {
    if (key >> 3 == 0 || key > UINT32_MAX) throw Malformed();
    switch (key & 7) {
      case kVarint: Varint(); return;
      case kFixed64: Drop(8); return;
      case kLength: Drop(Length()); return;
      case kFixed32: Drop(4); return;
      default: throw Malformed();
    }
  }

 private:
  std::size_t Length() {
    const std::uint64_t size = Varint();
    if (size > left_) throw Malformed();
    return static_cast<std::size_t>(size);
  }

  std::uint8_t Byte() {
    if (left_ == 0) throw Malformed();
    Refill();
    left_--;
    return *at_++;
  }

  void Drop(std::size_t size) {
    for (; size > 0; size--) Byte();
  }

  // Sees to it that there is a byte at at_; left_ says that there is one somewhere.
  void Refill() {
    while (at_ == end_) NextSlice();
  }

  void NextSlice() {
    const grpc::Slice& slice = slices_[next_++];
    at_ = slice.begin();
    end_ = slice.end();
  }

  const std::vector<grpc::Slice>& slices_;
  std::vector<std::shared_ptr<void>>& copied_;
  std::size_t next_ = 0;
  const std::uint8_t* at_ = nullptr;
  const std::uint8_t* end_ = nullptr;
  std::size_t left_ = 0;
};

// A clipper.v1.BatchTensor as it came.
struct Received {
  std::string_view name, data;
  std::uint64_t type = 0;
  Shape shape;
  std::vector<Shape> row_shapes;
  std::vector<std::string_view> strings, byte_strings;
};

Received ReadTensor(Reader& reader) {
  Received tensor;
  reader.Message([&](std::uint64_t key) {
    switch (key) {
      case Key(1, kLength): tensor.name = reader.Bytes(); break;
      case Key(2, kVarint): tensor.type = reader.Varint(); break;
      case Key(3, kLength): reader.Integers(&tensor.shape); break;
      case Key(3, kVarint): tensor.shape.push_back(static_cast<std::int64_t>(reader.Varint())); break;
      case Key(4, kLength): tensor.data = reader.Bytes(); break;
      case Key(5, kLength): tensor.strings.push_back(reader.Bytes()); break;
      case Key(6, kLength): tensor.byte_strings.push_back(reader.Bytes()); break;
      case Key(7, kLength): {
        Shape& shape = tensor.row_shapes.emplace_back();
        reader.Message([&](std::uint64_t inner) {
          if (inner == Key(1, kLength)) {
            reader.Integers(&shape);
          } else if (inner == Key(1, kVarint)) {
            shape.push_back(static_cast<std::int64_t>(reader.Varint()));
          } else {
            reader.Skip(inner);
          }
        });
        break;
      }
      default: reader.Skip(key);
    }
  });
  return tensor;
}

// The number of elements of rows of a shape.
std::size_t Product(const Shape& shape, const std::string& field, std::uint32_t rows = 1) {
  std::int64_t product = rows;
  for (std::int64_t dim : shape) {
    if (dim < 0) throw Invalid("a dimension is negative", field);
    if (__builtin_mul_overflow(product, dim, &product) || product > INT32_MAX) throw Invalid("the shape has more elements than a message", field);
  }
  return static_cast<std::size_t>(product);
}

std::string Words(const Shape& shape) {
  std::string words = "[";
  for (std::size_t i = 0; i < shape.size(); i++) words += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return words + "]";
}

bool Fits(Span<const std::int64_t> shape, const Shape& expected) {
  return shape.size() == expected.size() &&
         std::equal(shape.begin(), shape.end(), expected.begin(), [](std::int64_t is, std::int64_t wanted) { return wanted < 0 || is == wanted; });
}

// Throws when a tensor is not as the signature says.
void Check(const Tensor& tensor, const Spec& spec, std::size_t place) {
  const std::string field = "inputs[" + std::to_string(place) + "]";
  const std::string input = spec.name.empty() ? "the input " : "the input '" + spec.name + "' ";
  if (spec.type != DataType::kAny && tensor.type() != spec.type) {
    throw BatchError(grpc::INVALID_ARGUMENT, v1::ERROR_REASON_INPUT_TYPE,
                     input + "has elements of type " + Name(tensor.type()) + "; the model takes " + Name(spec.type), field + ".data_type");
  }
  if (spec.any_shape) return;
  for (std::size_t row = 0; row < (tensor.ragged() ? tensor.rows() : 1); row++) {
    Span<const std::int64_t> shape = tensor.row_shape(row);
    if (Fits(shape, spec.shape)) continue;
    throw BatchError(grpc::INVALID_ARGUMENT, v1::ERROR_REASON_INPUT_SHAPE,
                     input + "has rows of shape " + Words({shape.begin(), shape.end()}) + "; the model takes " + Words(spec.shape), field + ".shape");
  }
}

// A slice of memory that the owner keeps.
grpc::Slice Share(const void* data, std::size_t bytes, std::shared_ptr<const void> owner) {
  struct Holder {
    std::shared_ptr<const void> owner;
    std::atomic<bool> made;
  };
  auto* holder = new Holder{std::move(owner), {}};
  // The transport lets go of it on any thread; it has locks of its own, which a sanitizer need not know.
  holder->made.store(true, std::memory_order_release);
  return grpc::Slice(const_cast<void*>(data), bytes, [](void* p) {
    auto* held = static_cast<Holder*>(p);
    if (held->made.load(std::memory_order_acquire)) delete held;
  }, holder);
}

void AppendVarint(std::string* out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

std::size_t VarintSize(std::uint64_t value) {
  std::size_t size = 1;
  for (; value >= 0x80; value >>= 7) size++;
  return size;
}

}  // namespace

std::optional<Request> Decoder::Decode(const grpc::ByteBuffer& bytes, const Options& options) {
  Request request;
  std::vector<Received> received;
  if (!bytes.Dump(&request.received).ok()) return std::nullopt;
  Reader reader(&request);
  try {
    while (!reader.AtEnd()) {
      switch (const std::uint64_t key = reader.Varint(); key) {
        case Key(1, kVarint): request.id = reader.Varint(); break;
        case Key(2, kVarint): request.rows = static_cast<std::uint32_t>(reader.Varint()); break;
        case Key(3, kLength): received.push_back(ReadTensor(reader)); break;
        case Key(4, kVarint): request.timeout_micros = reader.Varint(); break;
        default: reader.Skip(key);
      }
    }
  } catch (const Malformed&) {
    return std::nullopt;
  }

  auto make = [&](Received& from, const std::string& field) {
    Tensor tensor;
    const bool ragged = !from.row_shapes.empty();
    if (!IsUtf8(from.name)) throw Invalid("the name is not UTF-8", field + ".name");
    if (ragged && from.row_shapes.size() != request.rows) {
      throw Invalid(std::to_string(from.row_shapes.size()) + " row shapes for " + std::to_string(request.rows) + " rows", field + ".row_shapes");
    }
    if (ragged && !from.shape.empty()) throw Invalid("shape is set although every row has a shape of its own", field + ".shape");
    if (from.type == 0 || from.type > static_cast<std::uint64_t>(DataType::kBytes)) {
      throw Invalid("data type " + std::to_string(from.type) + " is not one of clipper.v1.DataType", field + ".data_type");
    }
    tensor.name_ = from.name;
    tensor.type_ = static_cast<DataType>(from.type);
    tensor.dims_ = {static_cast<std::int64_t>(request.rows)};
    if (ragged) {
      tensor.ends_ = {0};
      for (const Shape& shape : from.row_shapes) tensor.ends_.push_back(tensor.ends_.back() + Product(shape, field + ".row_shapes"));
      tensor.size_ = tensor.ends_.back();
    } else {
      tensor.dims_.insert(tensor.dims_.end(), from.shape.begin(), from.shape.end());
      tensor.size_ = Product(from.shape, field + ".shape", request.rows);
    }
    tensor.row_shapes_ = std::move(from.row_shapes);

    if (tensor.type_ == DataType::kString || tensor.type_ == DataType::kBytes) {
      const bool text = tensor.type_ == DataType::kString;
      const std::string name = field + (text ? ".strings" : ".byte_strings");
      tensor.strings_ = std::move(text ? from.strings : from.byte_strings);
      if (tensor.strings_.size() != tensor.size_) {
        throw Invalid(std::to_string(tensor.strings_.size()) + " elements where the shapes need " + std::to_string(tensor.size_), name);
      }
      if (text && !std::all_of(tensor.strings_.begin(), tensor.strings_.end(), IsUtf8)) throw Invalid("a string is not UTF-8", name);
      return tensor;
    }
    const std::size_t width = SizeOf(tensor.type_);
    if (from.data.size() != tensor.size_ * width) {
      throw Invalid(std::to_string(from.data.size()) + " bytes where the shapes need " + std::to_string(tensor.size_ * width), field + ".data");
    }
    if (tensor.type_ == DataType::kBool && std::any_of(from.data.begin(), from.data.end(), [](char c) { return c != 0 && c != 1; })) {
      throw Invalid("an element of type bool is neither 0 nor 1", field + ".data");
    }
    tensor.data_ = from.data.data();
    if (from.data.empty() || reinterpret_cast<std::uintptr_t>(tensor.data_) % width != 0) {
      std::shared_ptr<void> copy = Aligned(from.data.size());
      if (!from.data.empty()) std::memcpy(copy.get(), from.data.data(), from.data.size());
      tensor.data_ = copy.get();
      request.copied.push_back(std::move(copy));
    }
    for (const std::shared_ptr<void>& copy : request.copied) {
      if (copy.get() == tensor.data_) tensor.owner_ = copy;
    }
    return tensor;
  };

  try {
    if (request.rows == 0) throw Invalid("rows is 0; a batch has at least one row", "rows");
    if (options.max_batch_rows != 0 && request.rows > options.max_batch_rows) {
      throw BatchError(grpc::RESOURCE_EXHAUSTED, v1::ERROR_REASON_TOO_LARGE,
                       "the batch has " + std::to_string(request.rows) + " rows; the container takes " + std::to_string(options.max_batch_rows), "rows");
    }
    if (received.empty()) throw Invalid("the batch has no input tensor", "inputs");
    std::vector<Tensor> tensors;
    std::set<std::string_view> names;
    for (std::size_t i = 0; i < received.size(); i++) {
      const std::string field = "inputs[" + std::to_string(i) + "]";
      Tensor tensor = make(received[i], field);
      if (received.size() > 1 && (tensor.name().empty() || !names.insert(tensor.name()).second)) {
        throw Invalid("the name '" + std::string(tensor.name()) + "' is empty or repeated; of several inputs each has its own", field + ".name");
      }
      tensors.push_back(std::move(tensor));
    }
    if (request.rows > kMaxEmptyRows && std::all_of(tensors.begin(), tensors.end(), [](const Tensor& t) { return t.size() == 0 && !t.ragged(); })) {
      throw BatchError(grpc::RESOURCE_EXHAUSTED, v1::ERROR_REASON_TOO_LARGE,
                       "the batch has " + std::to_string(request.rows) + " rows without elements; the container takes " + std::to_string(kMaxEmptyRows), "rows");
    }
    if (!options.inputs.empty() && tensors.size() != options.inputs.size()) {
      throw Invalid("the batch has " + std::to_string(tensors.size()) + " inputs; the model takes " + std::to_string(options.inputs.size()), "inputs");
    }
    for (const Spec& spec : options.inputs) {
      // The only one may go without a name.
      const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const Tensor& tensor) {
        return tensor.name() == spec.name || (tensors.size() == 1 && (tensor.name().empty() || spec.name.empty()));
      });
      if (found == tensors.end()) throw Invalid("the batch has no input '" + spec.name + "'", "inputs");
      Check(*found, spec, static_cast<std::size_t>(found - tensors.begin()));
      request.batch.inputs_.push_back(*found);
    }
    if (options.inputs.empty()) request.batch.inputs_ = std::move(tensors);
    request.batch.rows_ = request.rows;
  } catch (const BatchError&) {
    request.batch.inputs_.clear();
    request.error = std::current_exception();
  }
  return request;
}

grpc::ByteBuffer Encoder::Encode(std::uint64_t id, Result result, std::uint64_t predict_micros) {
  if (result.outputs_.empty()) throw BadOutput("the model added no output; an answer has one at least");
  std::vector<grpc::Slice> slices;
  std::string bytes;
  v1::PredictResponse response;
  response.set_id(id);
  response.set_predict_micros(predict_micros);
  for (auto& [row, why] : result.failed_) {
    v1::RowError* failed = response.add_row_errors();
    failed->set_row(static_cast<std::uint32_t>(row));
    *failed->mutable_error() = ToMessage(why);
  }
  response.AppendToString(&bytes);

  for (Result::Output& output : result.outputs_) {
    v1::BatchTensor tensor;
    tensor.set_name(output.name);
    tensor.set_data_type(static_cast<v1::DataType>(output.type));
    tensor.mutable_shape()->Add(output.shape.begin(), output.shape.end());
    for (const Shape& shape : output.row_shapes) tensor.add_row_shapes()->mutable_dims()->Add(shape.begin(), shape.end());
    for (std::string& value : output.strings) {
      *(output.type == DataType::kString ? tensor.add_strings() : tensor.add_byte_strings()) = std::move(value);
    }
    // The field `outputs` is written by hand around the elements, which follow as the field `data`.
    const bool data = output.bytes > 0;
    const std::size_t rest = tensor.ByteSizeLong();
    AppendVarint(&bytes, Key(2, kLength));
    AppendVarint(&bytes, rest + (data ? 1 + VarintSize(output.bytes) + output.bytes : 0));
    tensor.AppendToString(&bytes);
    if (!data) continue;
    AppendVarint(&bytes, Key(4, kLength));
    AppendVarint(&bytes, output.bytes);
    if (output.bytes < kSmall) {
      bytes.append(static_cast<const char*>(output.data), output.bytes);
    } else {
      slices.emplace_back(bytes);
      bytes.clear();
      slices.push_back(Share(output.data, output.bytes, std::move(output.owner)));
    }
  }
  if (!bytes.empty()) slices.emplace_back(bytes);
  return {slices.data(), slices.size()};
}

grpc::ByteBuffer Encoder::Encode(std::uint64_t id, const std::exception_ptr& error, std::uint64_t predict_micros) {
  v1::PredictResponse response;
  response.set_id(id);
  response.set_predict_micros(predict_micros);
  *response.mutable_error() = ToMessage(error);
  const grpc::Slice slice(response.SerializeAsString());
  return {&slice, 1};
}

std::optional<std::string> FirstText(const grpc::ByteBuffer& bytes) {
  Request request;
  if (!bytes.Dump(&request.received).ok()) return std::nullopt;
  Reader reader(&request);
  std::string text;
  try {
    while (!reader.AtEnd()) {
      if (const std::uint64_t key = reader.Varint(); key == Key(1, kLength)) {
        text = reader.Bytes();
      } else {
        reader.Skip(key);
      }
    }
  } catch (const Malformed&) {
    return std::nullopt;
  }
  return text;
}

}  // namespace clipper::internal
