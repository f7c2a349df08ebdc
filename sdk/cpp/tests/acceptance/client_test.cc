// SPDX-License-Identifier: Apache-2.0
// What the acceptance list does not see: tensors, options, and a client that nobody answers.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "clipper/client.h"

namespace clipper::client {
namespace {

TEST(Tensor, Lists) {
  const v1::Tensor t = MakeTensor<float>({1, 2, 3});
  EXPECT_EQ(t.data_type(), v1::DATA_TYPE_FLOAT32);
  ASSERT_EQ(t.shape_size(), 1);
  EXPECT_EQ(t.shape(0), 3);
  EXPECT_EQ(*Values<float>(t), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(*Values<bool>(MakeTensor<bool>({true, false})), (std::vector<bool>{true, false}));
  EXPECT_EQ(*Values<std::string>(MakeBytes({std::string("\0a", 2)}, {1})), (std::vector<std::string>{std::string("\0a", 2)}));
}

TEST(Tensor, OneElement) {
  EXPECT_EQ(*Value<std::int64_t>(Scalar<std::int64_t>(7)), 7);
  EXPECT_EQ(*Value<std::string>(Scalar<std::string>("a")), "a");
  EXPECT_EQ(Value<double>(MakeTensor<double>({1, 2})).error().message, "the tensor has 2 elements, not one");
}

TEST(Tensor, Matrices) {
  auto t = Matrix<std::int32_t>({{1, 2}, {3, 4}, {5, 6}});
  ASSERT_TRUE(t) << t.error().ToString();
  EXPECT_EQ(t->shape(0), 3);
  EXPECT_EQ(t->shape(1), 2);
  EXPECT_EQ(Matrix<float>({{1, 2}, {3}}).error().message, "row 1 has 1 elements, the first has 2");
  EXPECT_FALSE(Matrix<float>({}));
}

TEST(Tensor, OfAnotherTypeOrShape) {
  v1::Tensor t = MakeTensor<float>({1, 2});
  EXPECT_EQ(Values<double>(t).error().reason, reason::kInputType);
  EXPECT_EQ(Values<std::string>(t).error().reason, reason::kInputType);
  t.set_shape(0, 3);
  EXPECT_EQ(Values<float>(t).error().reason, reason::kInputShape);
  t.set_shape(0, -2);
  EXPECT_EQ(Values<float>(t).error().reason, reason::kInputShape);
  t.set_shape(0, std::numeric_limits<std::int64_t>::max());
  t.add_shape(8);
  EXPECT_EQ(Values<float>(t).error().reason, reason::kInputShape);
  t = MakeTensor<float>({1});
  t.mutable_data()->pop_back();
  EXPECT_EQ(Values<float>(t).error().reason, reason::kInputShape);
}

TEST(Tensor, HalfPrecision) {
  const float infinity = std::numeric_limits<float>::infinity();
  const struct {
    float in, half, brain;
  } cases[] = {
      {0, 0, 0},
      {1, 1, 1},
      {65504, 65504, 65536},
      {65519.996f, 65504, 65536},
      {65520, infinity, 65536},
      {-infinity, -infinity, -infinity},
      {std::ldexp(1.0f, -24), std::ldexp(1.0f, -24), std::ldexp(1.0f, -24)},
      {std::ldexp(1.0f, -25), 0, std::ldexp(1.0f, -25)},                       // halfway, to even
      {std::ldexp(3.0f, -25), std::ldexp(2.0f, -24), std::ldexp(3.0f, -25)},   // halfway, to even
      {std::ldexp(2047.0f, -25), std::ldexp(1.0f, -14), std::ldexp(1.0f, -14)},  // to the smallest normal one
      {2049, 2048, 2048},
      {2051, 2052, 2048},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.in);
    EXPECT_EQ((*Values<float>(MakeFloat16({c.in}, {1})))[0], c.half);
    EXPECT_EQ((*Values<float>(MakeBfloat16({c.in}, {1})))[0], c.brain);
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan((*Values<float>(MakeFloat16({nan}, {1})))[0]));
  EXPECT_TRUE(std::isnan((*Values<float>(MakeBfloat16({nan}, {1})))[0]));
}

TEST(Options, ThatCannotBeUsed) {
  const struct {
    void (*change)(Options&);
    const char* message;
  } cases[] = {
      {[](Options& o) { o.timeout = std::chrono::milliseconds(0); }, "timeout must be above 0, and attempts at least 1"},
      {[](Options& o) { o.attempts = 0; }, "timeout must be above 0, and attempts at least 1"},
      {[](Options& o) { o.cert_file = "me.pem"; }, "cert_file and key_file belong together"},
      {[](Options& o) { o.ca_file = "/no/such/file"; }, "ca_file /no/such/file cannot be read"},
      {[](Options& o) { o.api_key = "k", o.address = "clipper.example:1347"; },
       "the API key would be sent to clipper.example:1347 without TLS, for all to read: set ca_file or tls"},
      {[](Options& o) { o.api_key = "k", o.address = "127.0.0.1.example:1347"; },
       "the API key would be sent to 127.0.0.1.example:1347 without TLS, for all to read: set ca_file or tls"},
  };
  for (const auto& c : cases) {
    Options options;
    c.change(options);
    EXPECT_EQ(Client::Make(options).error().message, c.message);
  }
  for (const char* address : {"localhost:1", "127.0.0.2:1", "[::1]:1", "unix:/tmp/s"}) {
    Options options;
    options.api_key = "k";
    options.address = address;
    EXPECT_TRUE(Client::Make(options)) << address;
  }
}

TEST(Client, NobodyThere) {
  int attempts = 0;
  std::promise<void> last;
  Options options;
  options.address = options.admin_address = "unix:/no/such/socket";
  options.attempts = 2;
  options.observer = [&](const Attempt& attempt) {
    attempts = attempt.number;
    EXPECT_EQ(attempt.method, "/clipper.v1.QueryService/Query");
    ASSERT_NE(attempt.error, nullptr);
    EXPECT_EQ(attempt.repeated, attempt.number == 1);
  };
  auto client = Client::Make(options);
  ASSERT_TRUE(client);
  auto answer = client->Query({});
  EXPECT_EQ(answer.error().code, Code::kUnavailable);
  EXPECT_EQ(answer.error().reason, reason::kUnavailable);
  EXPECT_EQ(attempts, 2);
  auto stream = client->OpenStream();
  EXPECT_EQ(stream.Query({}).error().reason, reason::kUnavailable);
  // The client may be gone before its calls.
  std::future<Result<v1::QueryResponse>> late;
  {
    auto other = Client::Make(options);
    late = other->QueryAsync({});
  }
  EXPECT_EQ(late.get().error().reason, reason::kUnavailable);
}

}  // namespace
}  // namespace clipper::client
