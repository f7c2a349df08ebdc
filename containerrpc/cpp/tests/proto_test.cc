// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "clipper/v1/model_container_service.grpc.pb.h"
#include "clipper/v1/tensor.pb.h"

namespace {

using clipper::v1::BatchTensor;
using clipper::v1::DescribeRequest;
using clipper::v1::DescribeResponse;
using clipper::v1::ModelContainerService;
using clipper::v1::PredictRequest;
using clipper::v1::PredictResponse;
using clipper::v1::Tensor;

template <typename T>
class NumberTest : public testing::Test {};

using Numbers = testing::Types<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t,
                               std::int32_t, std::uint64_t, std::int64_t, float, double>;
TYPED_TEST_SUITE(NumberTest, Numbers);

template <typename T>
clipper::v1::DataType DataTypeOf();
template <> clipper::v1::DataType DataTypeOf<std::uint8_t>() { return clipper::v1::DATA_TYPE_UINT8; }
template <> clipper::v1::DataType DataTypeOf<std::int8_t>() { return clipper::v1::DATA_TYPE_INT8; }
template <> clipper::v1::DataType DataTypeOf<std::uint16_t>() { return clipper::v1::DATA_TYPE_UINT16; }
template <> clipper::v1::DataType DataTypeOf<std::int16_t>() { return clipper::v1::DATA_TYPE_INT16; }
template <> clipper::v1::DataType DataTypeOf<std::uint32_t>() { return clipper::v1::DATA_TYPE_UINT32; }
template <> clipper::v1::DataType DataTypeOf<std::int32_t>() { return clipper::v1::DATA_TYPE_INT32; }
template <> clipper::v1::DataType DataTypeOf<std::uint64_t>() { return clipper::v1::DATA_TYPE_UINT64; }
template <> clipper::v1::DataType DataTypeOf<std::int64_t>() { return clipper::v1::DATA_TYPE_INT64; }
template <> clipper::v1::DataType DataTypeOf<float>() { return clipper::v1::DATA_TYPE_FLOAT32; }
template <> clipper::v1::DataType DataTypeOf<double>() { return clipper::v1::DATA_TYPE_FLOAT64; }

TYPED_TEST(NumberTest, TensorsComeBackAsTheyWere) {
  const std::vector<TypeParam> values = {std::numeric_limits<TypeParam>::lowest(), 0, 1,
                                         std::numeric_limits<TypeParam>::max()};
  Tensor sent;
  sent.set_name("x");
  sent.set_data_type(DataTypeOf<TypeParam>());
  sent.add_shape(2);
  sent.add_shape(2);
  sent.set_data(values.data(), values.size() * sizeof(TypeParam));

  Tensor received;
  ASSERT_TRUE(received.ParseFromString(sent.SerializeAsString()));
  EXPECT_EQ(received.name(), "x");
  EXPECT_EQ(received.data_type(), DataTypeOf<TypeParam>());
  ASSERT_EQ(received.shape_size(), 2);
  EXPECT_EQ(received.shape(0) * received.shape(1), 4);
  ASSERT_EQ(received.data().size(), values.size() * sizeof(TypeParam));
  std::vector<TypeParam> back(values.size());
  std::memcpy(back.data(), received.data().data(), received.data().size());
  EXPECT_EQ(back, values);
}

TEST(TensorTest, StringsAndBytesComeBackAsTheyWere) {
  Tensor sent;
  sent.add_strings("ü€");
  sent.add_strings("");
  sent.add_byte_strings(std::string("\x00\xff", 2));
  Tensor received;
  ASSERT_TRUE(received.ParseFromString(sent.SerializeAsString()));
  ASSERT_EQ(received.strings_size(), 2);
  EXPECT_EQ(received.strings(0), "ü€");
  EXPECT_EQ(received.strings(1), "");
  ASSERT_EQ(received.byte_strings_size(), 1);
  EXPECT_EQ(received.byte_strings(0), std::string("\x00\xff", 2));
}

TEST(TensorTest, TruncatedMessagesAreRefused) {
  Tensor sent;
  sent.set_data("12345678");
  std::string wire = sent.SerializeAsString();
  wire.pop_back();
  Tensor received;
  EXPECT_FALSE(received.ParseFromString(wire));
}

// Answers each batch with the sum of each row, and a batch of another type with an error.
class SumContainer final : public ModelContainerService::Service {
  grpc::Status Describe(grpc::ServerContext*, const DescribeRequest*, DescribeResponse* response) override {
    response->set_model("sum");
    response->set_max_in_flight(2);
    return grpc::Status::OK;
  }

  grpc::Status Predict(grpc::ServerContext*, grpc::ServerReaderWriter<PredictResponse, PredictRequest>* stream) override {
    PredictRequest request;
    while (stream->Read(&request)) {
      PredictResponse response;
      response.set_id(request.id());
      const BatchTensor& input = request.inputs(0);
      if (input.data_type() != clipper::v1::DATA_TYPE_FLOAT64) {
        response.mutable_error()->set_code(grpc::StatusCode::INVALID_ARGUMENT);
        response.mutable_error()->set_reason(clipper::v1::ERROR_REASON_INPUT_TYPE);
      } else {
        std::vector<double> values(input.data().size() / sizeof(double));
        std::memcpy(values.data(), input.data().data(), input.data().size());
        std::vector<double> sums(request.rows());
        for (std::size_t i = 0; i < values.size(); i++) sums[i / input.shape(0)] += values[i];
        BatchTensor* output = response.add_outputs();
        output->set_data_type(clipper::v1::DATA_TYPE_FLOAT64);
        output->set_data(sums.data(), sums.size() * sizeof(double));
      }
      if (!stream->Write(response)) break;
    }
    return grpc::Status::OK;
  }
};

class ContainerTest : public testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    builder.RegisterService(&container_);
    // A socket, since the in-process transport holds nothing: two batches in flight would wait for
    // each other.
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    stub_ = ModelContainerService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
  }

  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
  }

  SumContainer container_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<ModelContainerService::Stub> stub_;
};

TEST_F(ContainerTest, Describes) {
  grpc::ClientContext context;
  DescribeResponse response;
  ASSERT_TRUE(stub_->Describe(&context, {}, &response).ok());
  EXPECT_EQ(response.model(), "sum");
  EXPECT_EQ(response.max_in_flight(), 2u);
}

TEST_F(ContainerTest, PredictsBatchesOnOneStream) {
  grpc::ClientContext context;
  auto stream = stub_->Predict(&context);
  const std::vector<double> rows = {1, 2, 3, 10, 20, 30};
  for (std::uint64_t id = 1; id <= 2; id++) {
    PredictRequest request;
    request.set_id(id);
    request.set_rows(2);
    BatchTensor* input = request.add_inputs();
    input->set_data_type(id == 1 ? clipper::v1::DATA_TYPE_FLOAT64 : clipper::v1::DATA_TYPE_STRING);
    input->add_shape(3);
    input->set_data(rows.data(), rows.size() * sizeof(double));
    ASSERT_TRUE(stream->Write(request));
  }
  PredictResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.id(), 1u);
  EXPECT_FALSE(response.has_error());
  std::vector<double> sums(2);
  ASSERT_EQ(response.outputs(0).data().size(), sums.size() * sizeof(double));
  std::memcpy(sums.data(), response.outputs(0).data().data(), response.outputs(0).data().size());
  EXPECT_EQ(sums, (std::vector<double>{6, 60}));

  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.id(), 2u);
  EXPECT_EQ(response.error().reason(), clipper::v1::ERROR_REASON_INPUT_TYPE);

  ASSERT_TRUE(stream->WritesDone());
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

}  // namespace
