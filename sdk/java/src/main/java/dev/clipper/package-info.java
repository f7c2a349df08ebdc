// SPDX-License-Identifier: Apache-2.0
/**
 * The client of Clipper, the prediction server: {@link dev.clipper.ClipperClient} blocks, {@link dev.clipper.AsyncClipperClient}
 * returns futures. The messages are those of {@code dev.clipper.v1}; this package adds the connection (TLS, key, deadline,
 * repetitions, keep-alive), errors with a reason, and tensors from and to arrays.
 */
package dev.clipper;
