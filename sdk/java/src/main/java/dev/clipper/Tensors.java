// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import dev.clipper.v1.DataType;
import dev.clipper.v1.Tensor;
import java.lang.reflect.Array;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.IntToDoubleFunction;
import java.util.function.IntToLongFunction;
import java.util.stream.Stream;

/**
 * Makes tensors of arrays, and arrays of tensors. Elements are row-major. Without a shape a tensor is a list; a shape whose product is not
 * the number of elements is an {@link IllegalArgumentException}. Arrays are copied.
 *
 * <p>Methods that read throw {@link IllegalArgumentException} when the tensor's type is not one of theirs, or when it does not have the
 * elements that its shape says.
 */
public final class Tensors {
    private Tensors() {}

    /** A tensor of FLOAT32. */
    public static Tensor of(float[] elements, long... shape) {
        ByteBuffer b = buffer(elements.length, Float.BYTES);
        b.asFloatBuffer().put(elements);
        return tensor(DataType.DATA_TYPE_FLOAT32, elements.length, b, shape);
    }

    /** A tensor of FLOAT64. */
    public static Tensor of(double[] elements, long... shape) {
        ByteBuffer b = buffer(elements.length, Double.BYTES);
        b.asDoubleBuffer().put(elements);
        return tensor(DataType.DATA_TYPE_FLOAT64, elements.length, b, shape);
    }

    /** A tensor of INT64. */
    public static Tensor of(long[] elements, long... shape) {
        return longs(DataType.DATA_TYPE_INT64, elements, shape);
    }

    /** A tensor of INT32. */
    public static Tensor of(int[] elements, long... shape) {
        return ints(DataType.DATA_TYPE_INT32, elements, shape);
    }

    /** A tensor of INT16. */
    public static Tensor of(short[] elements, long... shape) {
        return shorts(DataType.DATA_TYPE_INT16, elements, shape);
    }

    /** A tensor of INT8. */
    public static Tensor of(byte[] elements, long... shape) {
        return bytes(DataType.DATA_TYPE_INT8, elements, shape);
    }

    /** A tensor of BOOL. */
    public static Tensor of(boolean[] elements, long... shape) {
        byte[] b = new byte[elements.length];
        for (int i = 0; i < b.length; i++) {
            b[i] = (byte) (elements[i] ? 1 : 0);
        }
        return tensor(DataType.DATA_TYPE_BOOL, b.length, ByteBuffer.wrap(b), shape);
    }

    /** A tensor of STRING. */
    public static Tensor of(String[] elements, long... shape) {
        return start(DataType.DATA_TYPE_STRING, elements.length, shape).addAllStrings(Arrays.asList(elements)).build();
    }

    /** A tensor of BYTES: each element is a byte string. */
    public static Tensor of(byte[][] elements, long... shape) {
        return start(DataType.DATA_TYPE_BYTES, elements.length, shape).addAllByteStrings(Stream.of(elements).map(ByteString::copyFrom).toList()).build();
    }

    /** A tensor of UINT64: the bits of the elements, as {@link Long#parseUnsignedLong(String)} gives them. */
    public static Tensor unsigned(long[] elements, long... shape) {
        return longs(DataType.DATA_TYPE_UINT64, elements, shape);
    }

    /** A tensor of UINT32: the bits of the elements. */
    public static Tensor unsigned(int[] elements, long... shape) {
        return ints(DataType.DATA_TYPE_UINT32, elements, shape);
    }

    /** A tensor of UINT16: the bits of the elements. */
    public static Tensor unsigned(short[] elements, long... shape) {
        return shorts(DataType.DATA_TYPE_UINT16, elements, shape);
    }

    /** A tensor of UINT8: the bits of the elements. */
    public static Tensor unsigned(byte[] elements, long... shape) {
        return bytes(DataType.DATA_TYPE_UINT8, elements, shape);
    }

    /** A tensor of FLOAT16 (IEEE 754 binary16), rounded to even. */
    public static Tensor float16(float[] elements, long... shape) {
        short[] bits = new short[elements.length];
        for (int i = 0; i < bits.length; i++) {
            bits[i] = Half.of(elements[i]);
        }
        return shorts(DataType.DATA_TYPE_FLOAT16, bits, shape);
    }

    /** A tensor of BFLOAT16, rounded to even. */
    public static Tensor bfloat16(float[] elements, long... shape) {
        short[] bits = new short[elements.length];
        for (int i = 0; i < bits.length; i++) {
            int b = Float.floatToIntBits(elements[i]);
            if (!Float.isNaN(elements[i])) { // What is not a number must not be rounded to infinity.
                b += 0x7fff + (b >>> 16 & 1);
            }
            bits[i] = (short) (b >>> 16);
        }
        return shorts(DataType.DATA_TYPE_BFLOAT16, bits, shape);
    }

    /** A tensor of one FLOAT64 and no dimension. */
    public static Tensor scalar(double x) {
        return scalar(of(new double[] {x}));
    }

    /** A tensor of one FLOAT32 and no dimension. */
    public static Tensor scalar(float x) {
        return scalar(of(new float[] {x}));
    }

    /** A tensor of one INT64 and no dimension. */
    public static Tensor scalar(long x) {
        return scalar(of(new long[] {x}));
    }

    /** A tensor of one INT32 and no dimension. */
    public static Tensor scalar(int x) {
        return scalar(of(new int[] {x}));
    }

    /** A tensor of one BOOL and no dimension. */
    public static Tensor scalar(boolean x) {
        return scalar(of(new boolean[] {x}));
    }

    /** A tensor of one STRING and no dimension. */
    public static Tensor scalar(String x) {
        return scalar(of(new String[] {x}));
    }

    /** The same tensor without a dimension; it must have one element. */
    public static Tensor scalar(Tensor t) {
        if (elements(t) != 1) {
            throw new IllegalArgumentException("the tensor has the shape " + t.getShapeList() + ", not one element");
        }
        return t.toBuilder().clearShape().build();
    }

    /**
     * A tensor of an array of arrays of any depth, such as {@code float[][]} or {@code String[][][]}, of the type of its elements and the
     * shape of its nesting. All arrays of one depth must have the same length. A {@code byte[][]} is INT8 here.
     */
    public static Tensor nested(Object array) {
        List<Long> shape = new ArrayList<>();
        Class<?> type = array.getClass();
        for (Object at = array; type.isArray(); type = type.getComponentType()) {
            int n = at == null ? 0 : Array.getLength(at);
            shape.add((long) n);
            at = n == 0 || !type.getComponentType().isArray() ? null : Array.get(at, 0);
        }
        if (shape.isEmpty()) {
            throw new IllegalArgumentException(type.getName() + " is no array");
        }
        long[] lengths = shape.stream().mapToLong(Long::longValue).toArray();
        Object flat = Array.newInstance(type, Math.toIntExact(product(shape)));
        flatten(array, lengths, 0, flat, 0);
        if (flat instanceof double[] e) {
            return of(e, lengths);
        } else if (flat instanceof float[] e) {
            return of(e, lengths);
        } else if (flat instanceof long[] e) {
            return of(e, lengths);
        } else if (flat instanceof int[] e) {
            return of(e, lengths);
        } else if (flat instanceof short[] e) {
            return of(e, lengths);
        } else if (flat instanceof byte[] e) {
            return of(e, lengths);
        } else if (flat instanceof boolean[] e) {
            return of(e, lengths);
        } else if (flat instanceof String[] e) {
            return of(e, lengths);
        }
        throw new IllegalArgumentException("no tensor has elements of " + type.getName());
    }

    /** The same tensor with a name, for applications with several inputs. */
    public static Tensor named(String name, Tensor t) {
        return t.toBuilder().setName(name).build();
    }

    /** The elements of FLOAT32, FLOAT16 or BFLOAT16. */
    public static float[] toFloats(Tensor t) {
        float[] out = new float[elements(t)];
        IntToDoubleFunction at = switch (t.getDataType()) {
            case DATA_TYPE_FLOAT32, DATA_TYPE_FLOAT16, DATA_TYPE_BFLOAT16 -> floatAt(t, out.length);
            default -> throw wrong(t, "FLOAT32, FLOAT16 or BFLOAT16");
        };
        for (int i = 0; i < out.length; i++) {
            out[i] = (float) at.applyAsDouble(i);
        }
        return out;
    }

    /** The elements of FLOAT64, or of a smaller floating-point type. */
    public static double[] toDoubles(Tensor t) {
        double[] out = new double[elements(t)];
        IntToDoubleFunction at = floatAt(t, out.length);
        Arrays.setAll(out, at);
        return out;
    }

    /** The elements of any type of integers; those of UINT64 by their bits, see {@link Long#toUnsignedString(long)}. */
    public static long[] toLongs(Tensor t) {
        long[] out = new long[elements(t)];
        IntToLongFunction at = integerAt(t, out.length);
        Arrays.setAll(out, at);
        return out;
    }

    /** The elements of INT32, of smaller integers, or of UINT32 by their bits. */
    public static int[] toInts(Tensor t) {
        int[] out = new int[elements(t)];
        switch (t.getDataType()) {
            case DATA_TYPE_INT64, DATA_TYPE_UINT64 -> throw wrong(t, "integers of at most 32 bits");
            default -> { }
        }
        IntToLongFunction at = integerAt(t, out.length);
        Arrays.setAll(out, i -> (int) at.applyAsLong(i));
        return out;
    }

    /** The elements of BOOL. */
    public static boolean[] toBooleans(Tensor t) {
        boolean[] out = new boolean[elements(t)];
        if (t.getDataType() != DataType.DATA_TYPE_BOOL) {
            throw wrong(t, "BOOL");
        }
        ByteBuffer b = data(t, out.length, 1);
        for (int i = 0; i < out.length; i++) {
            out[i] = b.get(i) != 0;
        }
        return out;
    }

    /** The elements of STRING. */
    public static String[] toStrings(Tensor t) {
        if (t.getDataType() != DataType.DATA_TYPE_STRING) {
            throw wrong(t, "STRING");
        }
        return whole(t, t.getStringsList().toArray(String[]::new));
    }

    /** The elements of BYTES. */
    public static byte[][] toByteStrings(Tensor t) {
        if (t.getDataType() != DataType.DATA_TYPE_BYTES) {
            throw wrong(t, "BYTES");
        }
        return whole(t, t.getByteStringsList().stream().map(ByteString::toByteArray).toArray(byte[][]::new));
    }

    /**
     * An array for each dimension, such as {@code double[][]} of a tensor of two; without a dimension the element alone. Elements are
     * {@code float} (of FLOAT32 and smaller), {@code double}, {@code boolean}, {@code String}, {@code byte[]}, and of integers
     * {@code int} up to 32 bits signed or 16 unsigned, else {@code long}.
     */
    public static Object toNested(Tensor t) {
        Object flat = switch (t.getDataType()) {
            case DATA_TYPE_FLOAT16, DATA_TYPE_BFLOAT16, DATA_TYPE_FLOAT32 -> toFloats(t);
            case DATA_TYPE_FLOAT64 -> toDoubles(t);
            case DATA_TYPE_BOOL -> toBooleans(t);
            case DATA_TYPE_STRING -> toStrings(t);
            case DATA_TYPE_BYTES -> toByteStrings(t);
            case DATA_TYPE_UINT32, DATA_TYPE_INT64, DATA_TYPE_UINT64 -> toLongs(t);
            default -> toInts(t);
        };
        int[] shape = t.getShapeList().stream().mapToInt(Math::toIntExact).toArray();
        return nest(flat, shape, 0, new int[1]);
    }

    /** The only element, an integer; as {@link #toLongs}. */
    public static long longValue(Tensor t) {
        return toLongs(single(t))[0];
    }

    /** The only element, of floating point; as {@link #toDoubles}. */
    public static double doubleValue(Tensor t) {
        return toDoubles(single(t))[0];
    }

    /** The only element, of BOOL. */
    public static boolean booleanValue(Tensor t) {
        return toBooleans(single(t))[0];
    }

    /** The only element, of STRING. */
    public static String stringValue(Tensor t) {
        return toStrings(single(t))[0];
    }

    private static Tensor single(Tensor t) {
        if (elements(t) != 1) {
            throw new IllegalArgumentException("the tensor has the shape " + t.getShapeList() + ", not one element");
        }
        return t;
    }

    private static Tensor longs(DataType type, long[] elements, long[] shape) {
        ByteBuffer b = buffer(elements.length, Long.BYTES);
        b.asLongBuffer().put(elements);
        return tensor(type, elements.length, b, shape);
    }

    private static Tensor ints(DataType type, int[] elements, long[] shape) {
        ByteBuffer b = buffer(elements.length, Integer.BYTES);
        b.asIntBuffer().put(elements);
        return tensor(type, elements.length, b, shape);
    }

    private static Tensor shorts(DataType type, short[] elements, long[] shape) {
        ByteBuffer b = buffer(elements.length, Short.BYTES);
        b.asShortBuffer().put(elements);
        return tensor(type, elements.length, b, shape);
    }

    private static Tensor bytes(DataType type, byte[] elements, long[] shape) {
        return tensor(type, elements.length, ByteBuffer.wrap(elements.clone()), shape);
    }

    private static ByteBuffer buffer(int elements, int size) {
        return ByteBuffer.allocate(Math.multiplyExact(elements, size)).order(ByteOrder.LITTLE_ENDIAN);
    }

    private static Tensor tensor(DataType type, int elements, ByteBuffer data, long[] shape) {
        return start(type, elements, shape).setData(UnsafeByteOperations.unsafeWrap(data)).build(); // Nobody else has the buffer.
    }

    private static Tensor.Builder start(DataType type, int elements, long[] shape) {
        List<Long> lengths = shape.length == 0 ? List.of((long) elements) : Arrays.stream(shape).boxed().toList();
        if (product(lengths) != elements) {
            throw new IllegalArgumentException("the shape " + lengths + " is not that of " + elements + " elements");
        }
        return Tensor.newBuilder().setDataType(type).addAllShape(lengths);
    }

    private static long product(List<Long> shape) {
        long n = 1;
        for (long d : shape) {
            if (d < 0) {
                throw new IllegalArgumentException("the shape " + shape + " has a negative length");
            }
            try {
                n = Math.multiplyExact(n, d);
            } catch (ArithmeticException e) {
                throw new IllegalArgumentException("the shape " + shape + " is too large", e);
            }
        }
        return n;
    }

    /** Returns how many elements a tensor says that it has, no more than it can have. */
    private static int elements(Tensor t) {
        long n = product(t.getShapeList());
        if (n > Math.max(t.getData().size(), Math.max(t.getStringsCount(), t.getByteStringsCount()))) {
            throw incomplete(t);
        }
        return (int) n;
    }

    private static <T> T[] whole(Tensor t, T[] elements) {
        if (elements.length != elements(t)) {
            throw incomplete(t);
        }
        return elements;
    }

    private static ByteBuffer data(Tensor t, int elements, int size) {
        if (t.getData().size() != (long) elements * size) {
            throw incomplete(t);
        }
        return t.getData().asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
    }

    private static IntToDoubleFunction floatAt(Tensor t, int n) {
        switch (t.getDataType()) {
            case DATA_TYPE_FLOAT64 -> {
                ByteBuffer b = data(t, n, Double.BYTES);
                return i -> b.getDouble(i * Double.BYTES);
            }
            case DATA_TYPE_FLOAT32 -> {
                ByteBuffer b = data(t, n, Float.BYTES);
                return i -> b.getFloat(i * Float.BYTES);
            }
            case DATA_TYPE_FLOAT16 -> {
                ByteBuffer b = data(t, n, Short.BYTES);
                return i -> Half.toFloat(b.getShort(i * Short.BYTES));
            }
            case DATA_TYPE_BFLOAT16 -> {
                ByteBuffer b = data(t, n, Short.BYTES);
                return i -> Float.intBitsToFloat(b.getShort(i * Short.BYTES) << 16);
            }
            default -> throw wrong(t, "floating-point numbers");
        }
    }

    private static IntToLongFunction integerAt(Tensor t, int n) {
        switch (t.getDataType()) {
            case DATA_TYPE_INT64, DATA_TYPE_UINT64 -> {
                ByteBuffer b = data(t, n, Long.BYTES);
                return i -> b.getLong(i * Long.BYTES);
            }
            case DATA_TYPE_INT32 -> {
                ByteBuffer b = data(t, n, Integer.BYTES);
                return i -> b.getInt(i * Integer.BYTES);
            }
            case DATA_TYPE_UINT32 -> {
                ByteBuffer b = data(t, n, Integer.BYTES);
                return i -> Integer.toUnsignedLong(b.getInt(i * Integer.BYTES));
            }
            case DATA_TYPE_INT16 -> {
                ByteBuffer b = data(t, n, Short.BYTES);
                return i -> b.getShort(i * Short.BYTES);
            }
            case DATA_TYPE_UINT16 -> {
                ByteBuffer b = data(t, n, Short.BYTES);
                return i -> Short.toUnsignedLong(b.getShort(i * Short.BYTES));
            }
            case DATA_TYPE_INT8 -> {
                ByteBuffer b = data(t, n, 1);
                return b::get;
            }
            case DATA_TYPE_UINT8 -> {
                ByteBuffer b = data(t, n, 1);
                return i -> Byte.toUnsignedLong(b.get(i));
            }
            default -> throw wrong(t, "integers");
        }
    }

    private static int flatten(Object from, long[] shape, int depth, Object flat, int at) {
        if (from == null || Array.getLength(from) != shape[depth]) {
            throw new IllegalArgumentException("arrays of the same depth do not have the same length");
        }
        int n = (int) shape[depth];
        if (depth == shape.length - 1) {
            System.arraycopy(from, 0, flat, at, n);
            return at + n;
        }
        for (int i = 0; i < n; i++) {
            at = flatten(Array.get(from, i), shape, depth + 1, flat, at);
        }
        return at;
    }

    private static Object nest(Object flat, int[] shape, int depth, int[] at) {
        if (depth == shape.length) {
            return Array.get(flat, at[0]++);
        }
        int[] rest = Arrays.copyOfRange(shape, depth, shape.length);
        Object out = Array.newInstance(flat.getClass().getComponentType(), rest);
        if (rest.length == 1) {
            System.arraycopy(flat, at[0], out, 0, rest[0]);
            at[0] += rest[0];
            return out;
        }
        for (int i = 0; i < rest[0]; i++) {
            Array.set(out, i, nest(flat, shape, depth + 1, at));
        }
        return out;
    }

    private static IllegalArgumentException wrong(Tensor t, String wanted) {
        return new IllegalArgumentException("the tensor's elements are " + t.getDataType() + ", not " + wanted);
    }

    private static IllegalArgumentException incomplete(Tensor t) {
        return new IllegalArgumentException("the tensor does not have the elements that its shape " + t.getShapeList() + " says");
    }
}
