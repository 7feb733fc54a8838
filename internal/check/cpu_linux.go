package check

import (
	"time"

	"golang.org/x/sys/unix"
)

// ownTime is the processor time that the checker has used so far.
func ownTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
