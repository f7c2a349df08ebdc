// SPDX-License-Identifier: Apache-2.0

package profile

// Memory is that of a container's processes. Pages that they share count for each.
type Memory struct {
	// ResidentBytes is what they have after the last batch, PeakBytes the most that each has had.
	ResidentBytes uint64 `json:"resident_bytes"`
	PeakBytes     uint64 `json:"peak_bytes"`
	Processes     int    `json:"processes"`
}
