//go:build !failpoint

package failpoint

import "testing"

// A normal build must not fail on purpose, whatever its environment says.
func TestNormalBuildsHaveNoFailpoints(t *testing.T) {
	t.Setenv("IM_FAILPOINTS", "a=panic")
	if err := Hit("a"); err != nil || Enabled {
		t.Fatal(err, Enabled)
	}
	if n := testing.AllocsPerRun(100, func() { _ = Hit("a") }); n != 0 {
		t.Fatal(n, "allocations")
	}
}
