//go:build !failpoint

package failpoint

// Enabled tells whether this build has failpoints.
const Enabled = false

// Hit does nothing.
func Hit(string) error { return nil }
