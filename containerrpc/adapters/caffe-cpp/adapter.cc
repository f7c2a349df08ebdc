// SPDX-License-Identifier: Apache-2.0
// Serves a Caffe network with OpenCV's DNN module. CAFFE_MEAN (one number, or one for each channel) is subtracted from the
// input, which is then multiplied by CAFFE_SCALE.
#include <clipper/container.h>

#include <opencv2/dnn/shape_utils.hpp>

struct Caffe : clipper::Model {
  static constexpr char kExpects[] = "a folder that holds exactly one .prototxt, which declares the input's shape, and its one .caffemodel";

  explicit Caffe(const std::string& path)
      : net(cv::dnn::readNetFromCaffe(clipper::OnlyFile(path, ".prototxt"), clipper::OnlyFile(path, ".caffemodel"))) {
    std::vector<cv::dnn::MatShape> taken, given;
    net.getLayerShapes(cv::dnn::MatShape(), 0, taken, given);
    inputs = {{clipper::DataType::kFloat32, {given.at(0).begin() + 1, given.at(0).end()}}};
    // OpenCV makes the layers at the first use: now is the time to find what is wrong with them.
    net.setInput(cv::Mat(given[0], CV_32F, cv::Scalar(0)), "", scale, mean);
    given[0] = cv::dnn::shape(net.forward());
    outputs = {{clipper::DataType::kFloat32, {given[0].begin() + 1, given[0].end()}}};
    properties = {{"framework", "opencv " + cv::getVersionString()}};
  }

  void Predict(const clipper::Batch& batch, clipper::Result& result) override {
    const cv::dnn::MatShape dims(batch.input().dims().begin(), batch.input().dims().end());
    net.setInput(cv::Mat(dims, CV_32F, const_cast<float*>(batch.input().data<float>().data())), "", scale, mean);
    result.Add<float>(net.forward().reshape(1, 1), outputs[0].shape);
  }

  cv::dnn::Net net;
  double scale = clipper::Numbers("CAFFE_SCALE", 1, 1)[0];
  cv::Scalar mean = cv::Vec4d(clipper::Numbers("CAFFE_MEAN", 4, 0).data());
};

int main(int argc, char** argv) { return clipper::Serve<Caffe>(argc, argv); }
