// SPDX-License-Identifier: Apache-2.0

package pause

import (
	"runtime"
	"syscall"
	"time"
)

// setTimerSlack is PR_SET_TIMERSLACK. The kernel may wake a thread later than asked, by default 50
// microseconds, to wake several at once.
const setTimerSlack = 29

// nap sleeps for about d, perhaps less: a signal ends it.
func nap(d time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The smallest slack is one nanosecond. A kernel that does not know the call is only less exact.
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 1, 0)
	ts := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&ts, nil)
}
