package bench

import (
	"syscall"
	"time"
)

// pause sleeps to within some tens of microseconds.
func pause(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil)
}
