package process

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestChildren_DoNotInterruptOthers(t *testing.T) {
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
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
