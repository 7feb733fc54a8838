package process

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestChildren_DoNotInterruptOthers(t *testing.T) {
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil || own.Policy != unix.SCHED_NORMAL || !mayTakeTurns() {
		t.Skip("policies cannot be changed here, and are not: ", err)
	}
	child, err := unix.SchedGetAttr(sleeper(t).Pid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if child.Policy != unix.SCHED_BATCH {
		t.Errorf("policy %d, want SCHED_BATCH", child.Policy)
	}
	if child.Nice != own.Nice {
		t.Errorf("nice %d, want this program's %d", child.Nice, own.Nice)
	}
}

// mayTakeTurns tries it on a thread that ends after that.
func mayTakeTurns() bool {
	did := make(chan bool)
	go func() {
		runtime.LockOSThread() // for good
		takeTurns()
		attr, err := unix.SchedGetAttr(0, 0)
		did <- err == nil && attr.Policy == unix.SCHED_BATCH
	}()
	return <-did
}
