# SPDX-License-Identifier: Apache-2.0
"""Clipper's API as protocol buffers and gRPC stubs; the modules of v1 are generated from proto/clipper/v1."""
