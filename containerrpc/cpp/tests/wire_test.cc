// SPDX-License-Identifier: Apache-2.0
// The decoder and the encoder beside protobuf's own. What is random has a fixed seed.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "clipper/v1/model_container_service.pb.h"
#include "errors.h"
#include "wire.h"

namespace clipper::internal {
namespace {

class WireTest : public testing::Test {
 protected:
  std::size_t Below(std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_); }

  std::string Random(std::size_t size) {
    std::string bytes(size, '\0');
    for (char& c : bytes) c = static_cast<char>(Below(256));
    return bytes;
  }

  // A tensor that a batch of so many rows may have.
  v1::BatchTensor RandomTensor(std::uint32_t rows, const std::string& name) {
    v1::BatchTensor tensor;
    tensor.set_name(name);
    tensor.set_data_type(static_cast<v1::DataType>(1 + Below(15)));
    std::size_t size = rows;
    if (Below(2) == 0) {
      for (std::size_t i = Below(3); i > 0; i--) {
        tensor.add_shape(static_cast<std::int64_t>(Below(4)));
        size *= static_cast<std::size_t>(*tensor.shape().rbegin());
      }
    } else {
      size = 0;
      for (std::uint32_t i = 0; i < rows; i++) {
        const std::size_t length = Below(4);
        tensor.add_row_shapes()->add_dims(static_cast<std::int64_t>(length));
        size += length;
      }
    }
    if (tensor.data_type() == v1::DATA_TYPE_STRING) {
      for (; size > 0; size--) tensor.add_strings(Below(2) == 0 ? "" : "longer");
    } else if (tensor.data_type() == v1::DATA_TYPE_BYTES) {
      for (; size > 0; size--) tensor.add_byte_strings(Random(Below(20)));
    } else {
      tensor.set_data(Random(size * SizeOf(static_cast<DataType>(tensor.data_type()))));
      if (tensor.data_type() == v1::DATA_TYPE_BOOL) {
        for (char& c : *tensor.mutable_data()) c &= 1;
      }
    }
    return tensor;
  }

  v1::PredictRequest RandomRequest() {
    v1::PredictRequest request;
    request.set_id((static_cast<std::uint64_t>(random_()) << 32) | random_());
    request.set_rows(static_cast<std::uint32_t>(1 + Below(5)));
    request.set_timeout_micros(random_());
    const std::size_t inputs = 1 + Below(3);
    for (std::size_t i = 0; i < inputs; i++) *request.add_inputs() = RandomTensor(request.rows(), inputs == 1 ? "" : "input " + std::to_string(i));
    return request;
  }

  // The bytes in pieces, as they come from the network. Each has memory of its own, so that a sanitizer sees its end.
  grpc::ByteBuffer Cut(const std::string& bytes) {
    std::vector<grpc::Slice> slices;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t size = std::min(bytes.size() - at, Below(3) == 0 ? bytes.size() : Below(40));
      char* copy = new char[size];
      std::memcpy(copy, bytes.data() + at, size);
      slices.emplace_back(copy, size, [](void* p) { delete[] static_cast<char*>(p); });
      at += size;
    }
    return {slices.data(), slices.size()};
  }

  std::mt19937 random_{20};
};

// Reads all that a model can see of a batch, and returns the sum of the bytes, so that nothing is left out.
unsigned Touch(const Batch& batch) {
  unsigned sum = 0;
  const auto add = [&sum](const void* data, std::size_t size) {
    for (std::size_t i = 0; i < size; i++) sum += static_cast<const unsigned char*>(data)[i];
  };
  for (const Tensor& tensor : batch) {
    add(tensor.name().data(), tensor.name().size());
    EXPECT_EQ(tensor.rows(), batch.rows());
    std::size_t size = 0;
    for (std::size_t row = 0; row < batch.rows() && tensor.size() > 0; row++) size += tensor.row_size(row);
    EXPECT_EQ(size, tensor.size());
    add(tensor.raw(), tensor.raw_bytes());
    if (tensor.type() != DataType::kString && tensor.type() != DataType::kBytes) continue;
    for (std::string_view text : tensor.data<std::string_view>()) add(text.data(), text.size());
  }
  return sum;
}

void ExpectSame(const Tensor& tensor, const v1::BatchTensor& sent) {
  EXPECT_EQ(tensor.name(), sent.name());
  EXPECT_EQ(static_cast<int>(tensor.type()), sent.data_type());
  ASSERT_EQ(tensor.ragged(), sent.row_shapes_size() > 0);
  for (std::size_t row = 0; row < tensor.rows(); row++) {
    const auto& dims = tensor.ragged() ? sent.row_shapes(static_cast<int>(row)).dims() : sent.shape();
    const Span<const std::int64_t> shape = tensor.row_shape(row);
    EXPECT_TRUE(std::equal(shape.begin(), shape.end(), dims.begin(), dims.end()));
  }
  if (SizeOf(tensor.type()) > 0) {
    ASSERT_EQ(tensor.raw_bytes(), sent.data().size());
    EXPECT_EQ(std::memcmp(tensor.raw(), sent.data().data(), tensor.raw_bytes()), 0);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.raw()) % SizeOf(tensor.type()), 0u);
    return;
  }
  const Span<const std::string_view> strings = tensor.data<std::string_view>();
  if (tensor.type() == DataType::kString) {
    EXPECT_TRUE(std::equal(strings.begin(), strings.end(), sent.strings().begin(), sent.strings().end()));
  } else {
    EXPECT_TRUE(std::equal(strings.begin(), strings.end(), sent.byte_strings().begin(), sent.byte_strings().end()));
  }
}

TEST_F(WireTest, RequestsAreReadAsProtobufWritesThem) {
  for (int i = 0; i < 3000; i++) {
    const v1::PredictRequest sent = RandomRequest();
    const std::optional<Request> request = Decoder::Decode(Cut(sent.SerializeAsString()), {});
    ASSERT_TRUE(request.has_value());
    ASSERT_EQ(request->error, nullptr) << Describe(request->error) << "\n" << sent.DebugString();
    EXPECT_EQ(request->id, sent.id());
    EXPECT_EQ(request->timeout_micros, sent.timeout_micros());
    ASSERT_EQ(request->batch.rows(), sent.rows());
    ASSERT_EQ(request->batch.size(), static_cast<std::size_t>(sent.inputs_size()));
    for (std::size_t k = 0; k < request->batch.size(); k++) ExpectSame(request->batch.input(k), sent.inputs(static_cast<int>(k)));
  }
}

TEST_F(WireTest, TruncatedRequestsAreRefusedWhereProtobufRefusesThem) {
  for (int i = 0; i < 100; i++) {
    const std::string whole = RandomRequest().SerializeAsString();
    for (std::size_t size = 0; size < whole.size(); size++) {
      const std::string part = whole.substr(0, size);
      const std::optional<Request> request = Decoder::Decode(Cut(part), {});
      ASSERT_EQ(request.has_value(), v1::PredictRequest().ParseFromString(part));
      if (request.has_value()) Touch(request->batch);
    }
  }
}

TEST_F(WireTest, NoBytesBreakTheDecoder) {
  Options strict;
  strict.inputs = {{DataType::kFloat32, {-1}, "input 0"}, {DataType::kString, {}, "input 1"}};
  std::size_t read = 0, refused = 0, malformed = 0;
  for (int i = 0; i < 30000; i++) {
    std::string bytes = i % 10 == 0 ? Random(Below(60)) : RandomRequest().SerializeAsString();
    for (std::size_t k = Below(4); k > 0 && !bytes.empty(); k--) {
      const std::size_t at = Below(bytes.size());
      switch (Below(4)) {
        case 0: bytes[at] = static_cast<char>(Below(256)); break;
        case 1: bytes[at] ^= static_cast<char>(1 << Below(8)); break;
        case 2: bytes.erase(at, 1 + Below(4)); break;
        default: bytes.insert(at, Random(1 + Below(12)));
      }
    }
    const std::optional<Request> request = Decoder::Decode(Cut(bytes), i % 2 == 0 ? Options{} : strict);
    if (!request.has_value()) {
      malformed++;
    } else if (request->error != nullptr) {
      EXPECT_EQ(request->batch.size(), 0u);
      EXPECT_NE(ToMessage(request->error).reason(), v1::ERROR_REASON_MODEL_FAILED) << Describe(request->error);
      refused++;
    } else {
      Touch(request->batch);
      read++;
    }
  }
  // The loop is worth nothing if it ends at one place.
  EXPECT_GT(read, 1000u);
  EXPECT_GT(refused, 1000u);
  EXPECT_GT(malformed, 1000u);
}

v1::Error Refusal(const v1::PredictRequest& request) {
  const grpc::Slice slice(request.SerializeAsString());
  const std::optional<Request> decoded = Decoder::Decode(grpc::ByteBuffer(&slice, 1), {});
  return decoded->error == nullptr ? v1::Error() : ToMessage(decoded->error);
}

TEST_F(WireTest, NoShapeMeansMoreThanTheMessageHolds) {
  v1::PredictRequest request;
  v1::BatchTensor* input = request.add_inputs();
  input->set_data_type(v1::DATA_TYPE_FLOAT64);
  // The number of bytes is 2^64, which is 0 to a careless one.
  request.set_rows(1u << 31);
  input->add_shape(1 << 30);
  EXPECT_EQ(Refusal(request).field(), "inputs[0].shape");
  input->set_shape(0, std::numeric_limits<std::int64_t>::max());
  input->add_shape(3);
  EXPECT_EQ(Refusal(request).field(), "inputs[0].shape");
  // Rows of nothing cost nothing to send; their answers would.
  input->clear_shape();
  input->add_shape(0);
  request.set_rows(std::numeric_limits<std::uint32_t>::max());
  EXPECT_EQ(Refusal(request).reason(), v1::ERROR_REASON_TOO_LARGE);
  EXPECT_EQ(Refusal(request).field(), "rows");
  request.set_rows(1000);
  EXPECT_EQ(Refusal(request).code(), 0u);
  input->clear_shape();
  request.set_rows(std::numeric_limits<std::uint32_t>::max());
  EXPECT_EQ(Refusal(request).field(), "inputs[0].data");
}

TEST_F(WireTest, FieldsInAnyOrderUnknownOnesAndUnpackedShapes) {
  // Field 99 of each wire type; then the shape [2] of a tensor, not packed, before its type; then the rows.
  std::string bytes("\x98\x06\x07\x99\x06" "12345678" "\x9a\x06\x02hi\x9d\x06" "1234", 24);
  bytes += std::string("\x1a\x0e\x18\x02\x22\x08" "12345678" "\x10\x08", 16) + std::string("\x10\x01", 2);
  const std::optional<Request> request = Decoder::Decode(Cut(bytes), {});
  ASSERT_TRUE(request.has_value());
  ASSERT_EQ(request->error, nullptr) << Describe(request->error);
  EXPECT_EQ(request->batch.input().shape()[0], 2);
  EXPECT_EQ(request->batch.input().row<std::int32_t>(0).size(), 2u);
}

TEST_F(WireTest, AnswersAreReadByProtobufAsTheyWereMade) {
  for (int i = 0; i < 2000; i++) {
    const auto rows = static_cast<std::uint32_t>(1 + Below(5));
    const std::size_t outputs = 1 + Below(3);
    Result result(rows);
    std::vector<v1::BatchTensor> expected;
    for (std::size_t k = 0; k < outputs; k++) {
      const v1::BatchTensor& tensor = expected.emplace_back(RandomTensor(rows, outputs == 1 ? "" : std::to_string(k)));
      const auto type = static_cast<DataType>(tensor.data_type());
      const Shape shape(tensor.shape().begin(), tensor.shape().end());
      std::vector<Shape> shapes;
      for (const v1::Shape& row : tensor.row_shapes()) shapes.emplace_back(row.dims().begin(), row.dims().end());
      if (type == DataType::kString && shapes.empty()) {
        result.Add(std::vector<std::string>(tensor.strings().begin(), tensor.strings().end()), shape, tensor.name());
      } else if (type == DataType::kString) {
        result.AddRagged(std::vector<std::string>(tensor.strings().begin(), tensor.strings().end()), shapes, tensor.name());
      } else if (type == DataType::kBytes && shapes.empty()) {
        result.AddBytes({tensor.byte_strings().begin(), tensor.byte_strings().end()}, shape, tensor.name());
      } else if (shapes.empty()) {
        std::vector<std::int64_t> dims = {rows};
        dims.insert(dims.end(), shape.begin(), shape.end());
        result.Add(type, dims, tensor.data().data(), nullptr, tensor.name());
      } else {
        // Its own type, whatever was chosen: one that is ragged and of numbers.
        expected.back().clear_byte_strings();
        std::vector<std::int16_t> values;
        for (const Shape& row : shapes) values.insert(values.end(), static_cast<std::size_t>(row[0]), static_cast<std::int16_t>(Below(1000)));
        expected.back().set_data_type(v1::DATA_TYPE_INT16);
        expected.back().set_data(values.data(), values.size() * sizeof(std::int16_t));
        result.AddRagged(values, shapes, tensor.name());
      }
    }
    const std::size_t failed = Below(rows);
    result.Fail(failed, "not this one");
    std::vector<grpc::Slice> slices;
    ASSERT_TRUE(Encoder::Encode(7, std::move(result), 12).Dump(&slices).ok());
    std::string bytes;
    for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    v1::PredictResponse response;
    ASSERT_TRUE(response.ParseFromString(bytes));
    EXPECT_EQ(response.id(), 7u);
    EXPECT_EQ(response.predict_micros(), 12u);
    ASSERT_EQ(response.row_errors_size(), 1);
    EXPECT_EQ(response.row_errors(0).row(), failed);
    ASSERT_EQ(response.outputs_size(), static_cast<int>(outputs));
    for (int k = 0; k < response.outputs_size(); k++) EXPECT_EQ(response.outputs(k).SerializeAsString(), expected[k].SerializeAsString());
  }
}

TEST_F(WireTest, LargeOutputsAreSentFromWhereTheyAre) {
  Result result(1000);
  const float* data = result.Allocate<float>({10}).data();
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(Encoder::Encode(1, std::move(result), 0).Dump(&slices).ok());
  EXPECT_TRUE(std::any_of(slices.begin(), slices.end(), [data](const grpc::Slice& slice) { return slice.begin() == static_cast<const void*>(data); }));
}

TEST_F(WireTest, TextIsUtf8) {
  for (const char* good : {"", "a", "\u00e9", "\uffff", "\U0010ffff"}) EXPECT_TRUE(IsUtf8(good)) << good;
  for (const char* bad : {"\x80", "\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "a\xff"}) EXPECT_FALSE(IsUtf8(bad)) << bad;
}

}  // namespace
}  // namespace clipper::internal
