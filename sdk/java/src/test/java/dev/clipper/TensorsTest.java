// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import com.google.protobuf.Value;
import dev.clipper.v1.DataType;
import dev.clipper.v1.Tensor;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

class TensorsTest {
    static Stream<Arguments> types() {
        return Stream.of(
            Arguments.of(DataType.DATA_TYPE_FLOAT32, Tensors.of(new float[] {0.5f, Float.NaN}), "0000003f 0000c07f", new float[] {0.5f, Float.NaN}),
            Arguments.of(DataType.DATA_TYPE_FLOAT64, Tensors.of(new double[] {-2}), "00000000000000c0", new double[] {-2}),
            Arguments.of(DataType.DATA_TYPE_INT64, Tensors.of(new long[] {Long.MIN_VALUE, 1}), "0000000000000080 0100000000000000", new long[] {Long.MIN_VALUE, 1}),
            Arguments.of(DataType.DATA_TYPE_INT32, Tensors.of(new int[] {-2}), "feffffff", new int[] {-2}),
            Arguments.of(DataType.DATA_TYPE_INT16, Tensors.of(new short[] {-2}), "feff", new int[] {-2}),
            Arguments.of(DataType.DATA_TYPE_INT8, Tensors.of(new byte[] {-2}), "fe", new int[] {-2}),
            Arguments.of(DataType.DATA_TYPE_UINT64, Tensors.unsigned(new long[] {-1}), "ffffffffffffffff", new long[] {-1}),
            Arguments.of(DataType.DATA_TYPE_UINT32, Tensors.unsigned(new int[] {-1}), "ffffffff", new long[] {4294967295L}),
            Arguments.of(DataType.DATA_TYPE_UINT16, Tensors.unsigned(new short[] {-1}), "ffff", new int[] {65535}),
            Arguments.of(DataType.DATA_TYPE_UINT8, Tensors.unsigned(new byte[] {-1}), "ff", new int[] {255}),
            Arguments.of(DataType.DATA_TYPE_BOOL, Tensors.of(new boolean[] {true, false}), "0100", new boolean[] {true, false}),
            Arguments.of(DataType.DATA_TYPE_FLOAT16, Tensors.float16(new float[] {1}), "003c", new float[] {1}),
            Arguments.of(DataType.DATA_TYPE_BFLOAT16, Tensors.bfloat16(new float[] {1, Float.NaN}), "803f c07f", new float[] {1, Float.NaN}),
            Arguments.of(DataType.DATA_TYPE_STRING, Tensors.of(new String[] {"a", ""}), "", new String[] {"a", ""}),
            Arguments.of(DataType.DATA_TYPE_BYTES, Tensors.of(new byte[][] {{0, -1}, {}}), "", new byte[][] {{0, -1}, {}}));
    }

    @ParameterizedTest
    @MethodSource("types")
    void eachTypeIsLittleEndianAndComesBack(DataType type, Tensor t, String hex, Object back) {
        assertEquals(type, t.getDataType());
        var have = new StringBuilder();
        t.getData().forEach(b -> have.append(String.format("%02x", b)));
        assertEquals(hex.replace(" ", ""), have.toString());
        assertArrayEquals(new Object[] {back}, new Object[] {Tensors.toNested(t)});
    }

    @Test
    void arraysOfArraysHaveAShape() {
        Tensor t = Tensors.nested(new double[][][] {{{1, 2, 3}}, {{4, 5, 6}}});
        assertEquals(List.of(2L, 1L, 3L), t.getShapeList());
        assertArrayEquals(new double[] {1, 2, 3, 4, 5, 6}, Tensors.toDoubles(t));
        assertArrayEquals(new double[][][] {{{1, 2, 3}}, {{4, 5, 6}}}, (Object[]) Tensors.toNested(t));
        assertArrayEquals(new String[][] {{"a", "b"}}, (Object[]) Tensors.toNested(Tensors.nested(new String[][] {{"a", "b"}})));
        assertEquals(List.of(2L, 0L), Tensors.nested(new int[2][0]).getShapeList());
        assertEquals(7L, Tensors.toNested(Tensors.scalar(7L)));
    }

    @Test
    void arraysAreCopied() {
        byte[] bytes = {1};
        Tensor t = Tensors.of(bytes);
        bytes[0] = 2;
        assertEquals(ByteString.copyFrom(new byte[] {1}), t.getData());
    }

    @Test
    void smallerTypesAreWidened() {
        assertArrayEquals(new double[] {0.5}, Tensors.toDoubles(Tensors.float16(new float[] {0.5f})));
        assertArrayEquals(new long[] {-3}, Tensors.toLongs(Tensors.of(new byte[] {-3})));
        assertArrayEquals(new int[] {-1}, Tensors.toInts(Tensors.unsigned(new int[] {-1})));
        assertEquals(3, Tensors.longValue(Tensors.scalar(3)));
        assertEquals(0.25, Tensors.doubleValue(Tensors.scalar(0.25f)));
        assertEquals("a", Tensors.stringValue(Tensors.scalar("a")));
        assertTrue(Tensors.booleanValue(Tensors.scalar(true)));
    }

    static Stream<Arguments> mistakes() {
        return Stream.of(
            mistake("not that of 2 elements", () -> Tensors.of(new int[2], 3)),
            mistake("negative length", () -> Tensors.of(new int[2], -1, -2)),
            mistake("too large", () -> Tensors.of(new int[0], Long.MAX_VALUE, 4)),
            mistake("same length", () -> Tensors.nested(new int[][] {{1, 2}, {3}})),
            mistake("same length", () -> Tensors.nested(new int[][] {{1, 2}, null})),
            mistake("java.lang.Object", () -> Tensors.nested(new Object[] {1})),
            mistake("no array", () -> Tensors.nested("a")),
            mistake("DATA_TYPE_FLOAT64, not integers", () -> Tensors.toLongs(Tensors.scalar(1.0))),
            mistake("DATA_TYPE_INT64, not integers of at most 32 bits", () -> Tensors.toInts(Tensors.scalar(1L))),
            mistake("DATA_TYPE_FLOAT64, not FLOAT32", () -> Tensors.toFloats(Tensors.scalar(1.0))),
            mistake("DATA_TYPE_STRING, not floating-point", () -> Tensors.toDoubles(Tensors.scalar("1"))),
            mistake("not one element", () -> Tensors.longValue(Tensors.of(new long[2]))),
            mistake("not one element", () -> Tensors.scalar(Tensors.of(new long[2]))),
            mistake("that its shape [1000000000000] says", () -> Tensors.toLongs(Tensor.newBuilder().setDataType(DataType.DATA_TYPE_INT64).addShape(1_000_000_000_000L).build())),
            mistake("that its shape [1] says", () -> Tensors.toLongs(Tensors.scalar(1L).toBuilder().addShape(1).setData(ByteString.copyFrom(new byte[7])).build())),
            mistake("that its shape [1] says", () -> Tensors.toStrings(Tensors.of(new String[] {"a"}).toBuilder().addStrings("b").build())),
            mistake("no value of JSON", () -> Json.value(new Object())));
    }

    private static Arguments mistake(String says, Executable made) {
        return Arguments.of(says, made);
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("mistakes")
    void mistakesAreNamed(String says, Executable made) {
        String message = assertThrows(IllegalArgumentException.class, made).getMessage();
        assertTrue(message.contains(says), message);
    }

    @Test
    void everyHalfComesBack() {
        for (int bits = 0; bits < 1 << 16; bits++) {
            float x = Half.toFloat((short) bits);
            if (!Float.isNaN(x)) {
                assertEquals((short) bits, Half.of(x));
            }
        }
    }

    @ParameterizedTest
    @CsvSource({
        "1.00048828125, 3c00", // Halfway: the even one.
        "1.00146484375, 3c02",
        "65519.99, 7bff",
        "65520, 7c00",
        "-1e30, fc00",
        "2.98023223876953125e-8, 0000",
        "2.9802326e-8, 0001",
        "6.1e-5, 03ff",
        "6.103e-5, 0400",
        "NaN, 7e00",
    })
    void halvesAreRoundedToEven(float x, String hex) {
        assertEquals(hex, String.format("%04x", Half.of(x) & 0xffff));
    }

    @Test
    void valuesOfJson() {
        assertEquals(Value.newBuilder().setNumberValue(7).build(), Json.value(7));
        assertEquals(List.of("a", "b"), Json.value(new String[] {"a", "b"}).getListValue().getValuesList().stream().map(Value::getStringValue).toList());
        assertEquals(2, Json.value(List.of(1, new double[] {2})).getListValue().getValues(1).getListValue().getValues(0).getNumberValue());
        assertTrue(Json.value(Map.of("a", true)).getStructValue().getFieldsOrThrow("a").getBoolValue());
        assertTrue(Json.value(null).hasNullValue());
    }
}
