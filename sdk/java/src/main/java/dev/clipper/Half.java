// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

/** IEEE 754 binary16 by its bits; Java has it from 20 on. */
final class Half {
    /** Below the smallest normal one, 2<sup>-14</sup>, its steps are 2<sup>-24</sup>. */
    private static final int MIN_EXPONENT = -14;
    private static final double STEPS = 1 << 24;

    private Half() {}

    /** Returns the nearest one, the even one of two. */
    static short of(float x) {
        int sign = Float.floatToRawIntBits(x) >>> 16 & 0x8000;
        double a = Math.abs((double) x);
        int bits;
        if (Double.isNaN(a)) {
            bits = 0x7e00;
        } else if (a >= 65520) { // Halfway from the largest, 65504, to the next.
            bits = 0x7c00;
        } else if (a < Math.scalb(1.0, MIN_EXPONENT)) {
            bits = (int) Math.rint(a * STEPS); // What rounds up to 1024 is the smallest normal one.
        } else {
            int exponent = Math.getExponent(a);
            // From 1024 to 2048; the leading bit counts the exponent up by one.
            bits = (exponent + 14 << 10) + (int) Math.rint(Math.scalb(a, 10 - exponent));
        }
        return (short) (sign | bits);
    }

    static float toFloat(short bits) {
        float sign = bits < 0 ? -1 : 1;
        int exponent = bits >>> 10 & 0x1f;
        int fraction = bits & 0x3ff;
        return switch (exponent) {
            case 0 -> sign * (float) (fraction / STEPS);
            case 0x1f -> fraction == 0 ? sign * Float.POSITIVE_INFINITY : Float.NaN;
            default -> sign * Math.scalb(1 + fraction / 1024f, exponent - 15);
        };
    }
}
