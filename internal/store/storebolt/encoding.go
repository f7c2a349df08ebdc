// SPDX-License-Identifier: Apache-2.0

package storebolt

import (
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/clipper-serving/clipper/internal/store"
)

var errCorrupt = errors.New("corrupt record")

// record is a document as stored: revision and expiry, eight big-endian bytes each,
// then the value.
type record struct {
	revision store.Revision
	expiry   uint64 // Unix milliseconds; zero for a document that stays
	value    []byte
}

const recordHeader = 16

func (r record) encode() []byte {
	b := make([]byte, 0, recordHeader+len(r.value))
	b = binary.BigEndian.AppendUint64(b, uint64(r.revision))
	b = binary.BigEndian.AppendUint64(b, r.expiry)
	return append(b, r.value...)
}

// decodeRecord returns a record whose value shares memory with b.
func decodeRecord(b []byte) (record, error) {
	if len(b) < recordHeader {
		return record{}, errCorrupt
	}
	return record{
		revision: store.Revision(binary.BigEndian.Uint64(b)),
		expiry:   binary.BigEndian.Uint64(b[8:]),
		value:    b[recordHeader:],
	}, nil
}

func (r record) expired(now time.Time) bool {
	return r.expiry != 0 && int64(r.expiry) <= now.UnixMilli()
}

// ttl is what is left of a lease, and zero for a document that stays.
func (r record) ttl(now time.Time) time.Duration {
	if r.expiry == 0 {
		return 0
	}
	return max(time.UnixMilli(int64(r.expiry)).Sub(now), 1)
}

// encodeSums writes each field as its length, its bytes and eight little-endian
// bytes of float64, in the order of the fields so that equal sums are equal bytes.
func encodeSums(sums map[string]float64) []byte {
	var b []byte
	for _, field := range slices.Sorted(maps.Keys(sums)) {
		b = binary.AppendUvarint(b, uint64(len(field)))
		b = append(b, field...)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(sums[field]))
	}
	return b
}

// decodeSums reads what encodeSums wrote; no bytes are no sums.
func decodeSums(b []byte) (map[string]float64, error) {
	sums := make(map[string]float64)
	for len(b) > 0 {
		n, size := binary.Uvarint(b)
		if size <= 0 || uint64(len(b)-size) < 8 || n > uint64(len(b)-size-8) {
			return nil, errCorrupt
		}
		b = b[size:]
		sums[string(b[:n])] = math.Float64frombits(binary.LittleEndian.Uint64(b[n:]))
		b = b[n+8:]
	}
	return sums, nil
}
