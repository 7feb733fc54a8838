// Package e2e tests the whole system from outside: one cluster, as `make up` runs
// it but for passwords that are cheap to hash, for all tests of the package, spoken
// to over the public protocol only. Tests kill, pause and restart its processes;
// each leaves it healthy.
//
// The tests run when IM_E2E=1 is set, as `make test` and `make e2e` do: they
// need half a minute to build and start what they test.
package e2e
