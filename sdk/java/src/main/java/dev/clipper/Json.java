// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

import com.google.protobuf.ListValue;
import com.google.protobuf.NullValue;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import java.lang.reflect.Array;
import java.util.Map;

/** Makes the values of messages that are JSON, such as a truth or an application's default output. */
public final class Json {
    private Json() {}

    /**
     * Returns the value of null, a boolean, a number, text, an array or an iterable of them, or a map of them. Integers
     * beyond 2<sup>53</sup> are rounded, as JSON's are here.
     *
     * @throws IllegalArgumentException for anything else
     */
    public static Value value(Object v) {
        Value.Builder b = Value.newBuilder();
        if (v == null) {
            return b.setNullValue(NullValue.NULL_VALUE).build();
        }
        if (v instanceof Value given) {
            return given;
        }
        if (v instanceof Boolean x) {
            return b.setBoolValue(x).build();
        }
        if (v instanceof Number x) {
            return b.setNumberValue(x.doubleValue()).build();
        }
        if (v instanceof CharSequence x) {
            return b.setStringValue(x.toString()).build();
        }
        if (v instanceof Map<?, ?> x) {
            Struct.Builder struct = Struct.newBuilder();
            x.forEach((name, item) -> struct.putFields(String.valueOf(name), value(item)));
            return b.setStructValue(struct).build();
        }
        ListValue.Builder list = ListValue.newBuilder();
        if (v instanceof Iterable<?> x) {
            x.forEach(item -> list.addValues(value(item)));
        } else if (v.getClass().isArray()) {
            for (int i = 0; i < Array.getLength(v); i++) {
                list.addValues(value(Array.get(v, i)));
            }
        } else {
            throw new IllegalArgumentException(v.getClass().getName() + " is no value of JSON");
        }
        return b.setListValue(list).build();
    }
}
