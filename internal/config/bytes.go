// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is an amount of memory. As text it is a whole number with an optional
// unit: "65536", "64KiB", "16MiB", "2GiB".
type Bytes int64

// Units of Bytes.
const (
	KiB Bytes = 1 << (10 * (iota + 1))
	MiB
	GiB
)

var _ encoding.TextUnmarshaler = (*Bytes)(nil)

var units = []struct {
	suffix string
	size   Bytes
}{{"KiB", KiB}, {"MiB", MiB}, {"GiB", GiB}, {"B", 1}, {"", 1}}

// UnmarshalText reads an amount that is not negative.
func (b *Bytes) UnmarshalText(text []byte) error {
	for _, unit := range units {
		number, ok := strings.CutSuffix(string(text), unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 63)
		if err != nil || n > math.MaxInt64/uint64(unit.size) {
			break
		}
		*b = Bytes(n) * unit.size
		return nil
	}
	return fmt.Errorf("%q is not an amount of memory: want a whole number and B, KiB, MiB or GiB", text)
}

// String writes the amount in the largest unit that divides it.
func (b Bytes) String() string {
	for _, unit := range []int{2, 1, 0} {
		if u := units[unit]; b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}
