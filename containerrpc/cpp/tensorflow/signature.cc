// SPDX-License-Identifier: Apache-2.0
#include "signature.h"

#include <cstddef>

#include "clipper/container.h"

namespace clipper::internal {
namespace {

// A field of a protobuf message: a number, or the bytes of what has a length.
struct Field {
  std::uint64_t number;
  std::uint64_t value;
  std::string_view bytes;
};

std::string_view Take(std::string_view& in, std::uint64_t size) {
  if (size > in.size()) throw ModelError("the description of the graph is cut off");
  std::string_view taken = in.substr(0, size);
  in.remove_prefix(size);
  return taken;
}

std::uint64_t Varint(std::string_view& in) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = static_cast<std::uint8_t>(Take(in, 1)[0]);
    value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  throw ModelError("the description of the graph has a number that is too long");
}

std::vector<Field> Fields(std::string_view message) {
  std::vector<Field> fields;
  while (!message.empty()) {
    const std::uint64_t key = Varint(message);
    Field& field = fields.emplace_back(Field{key >> 3, 0, {}});
    switch (key & 7) {
      case 0: field.value = Varint(message); break;
      case 1: Take(message, 8); break;
      case 2: field.bytes = Take(message, Varint(message)); break;
      case 5: Take(message, 4); break;
      default: throw ModelError("the description of the graph is no protobuf message");
    }
  }
  return fields;
}

// An entry of a map: the field 1 is the key, the field 2 the value.
template <typename T>
void ReadEntry(std::string_view entry, std::map<std::string, T>& map, T (*read)(std::string_view)) {
  std::string key;
  std::string_view value;
  for (const Field& field : Fields(entry)) {
    if (field.number == 1) key = field.bytes;
    if (field.number == 2) value = field.bytes;
  }
  map[key] = read(value);
}

TensorInfo ReadTensorInfo(std::string_view message) {
  TensorInfo info;
  for (const Field& field : Fields(message)) {
    if (field.number == 1) info.tensor = field.bytes;
    if (field.number == 2) info.type = static_cast<int>(field.value);
    if (field.number != 3) continue;
    for (const Field& part : Fields(field.bytes)) {  // of the TensorShapeProto
      if (part.number == 3) info.unknown_rank = part.value != 0;
      if (part.number != 2) continue;
      std::int64_t& length = info.shape.emplace_back(0);
      for (const Field& dim : Fields(part.bytes)) {
        if (dim.number == 1) length = static_cast<std::int64_t>(dim.value);
      }
    }
  }
  return info;
}

Signature ReadSignature(std::string_view message) {
  Signature signature;
  for (const Field& field : Fields(message)) {
    if (field.number == 1) ReadEntry(field.bytes, signature.inputs, ReadTensorInfo);
    if (field.number == 2) ReadEntry(field.bytes, signature.outputs, ReadTensorInfo);
  }
  return signature;
}

}  // namespace

std::map<std::string, Signature> ReadSignatures(std::string_view meta_graph) {
  std::map<std::string, Signature> signatures;
  for (const Field& field : Fields(meta_graph)) {
    if (field.number == 5) ReadEntry(field.bytes, signatures, ReadSignature);
  }
  return signatures;
}

}  // namespace clipper::internal
