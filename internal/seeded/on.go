//go:build seeded

package seeded

import (
	"os"
)

var chosen = Bug(os.Getenv("IM_SEEDED_BUG"))

func init() {
	known := chosen == ""
	for _, b := range All {
		known = known || b.Bug == chosen
	}
	if !known {
		panic("IM_SEEDED_BUG: there is no fault " + string(chosen))
	}
}

// On reports whether the fault is in this process.
func On(b Bug) bool { return b == chosen }
