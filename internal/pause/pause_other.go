// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package pause

import "time"

// nap sleeps for at least d.
func nap(d time.Duration) { time.Sleep(d) }
