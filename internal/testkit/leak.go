package testkit

import "go.uber.org/goleak"

// LeakOptions excuses, for goleak, the goroutines that this package keeps for as
// long as the test process lives: the thread that starts servers and the wait
// for the shared database server.
func LeakOptions() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("im-services/internal/cluster/process.onSpawner.func1.1"),
		goleak.IgnoreAnyFunction("im-services/internal/cluster/process.Start.func2"),
	}
}
