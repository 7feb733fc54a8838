package process

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestChildren_DoNotInterruptOthers(t *testing.T) {
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := own.Policy
	if mayTakeTurns() {
		want = unix.SCHED_BATCH
	}
	child, err := unix.SchedGetAttr(sleeper(t).Pid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if child.Policy != want {
		t.Errorf("policy %d, want %d", child.Policy, want)
	}
	if child.Nice != own.Nice {
		t.Errorf("nice %d, want this program's %d", child.Nice, own.Nice)
	}
}

// mayTakeTurns reports whether that is allowed here. It is tried on a thread that ends
// after that.
func mayTakeTurns() bool {
	did := make(chan bool)
	go func() {
		runtime.LockOSThread() // for good
		attr, err := unix.SchedGetAttr(0, 0)
		if err == nil {
			attr.Policy = unix.SCHED_BATCH
			err = unix.SchedSetAttr(0, attr, 0)
		}
		did <- err == nil
	}()
	return <-did
}
