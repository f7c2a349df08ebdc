// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

/**
 * What became of one item of a batch: a value or an error, the other is null.
 *
 * @param value what was answered
 * @param error why there is no answer
 */
public record Result<T>(T value, ClipperException error) {
    /**
     * Returns the value.
     *
     * @throws ClipperException the item's error
     */
    public T get() {
        if (error != null) {
            throw error.here();
        }
        return value;
    }
}
