// Package crowd makes the users that a benchmark needs, over the public API:
// accounts, friendships and groups.
//
// A password hash costs 30 ms of processor time by design, so accounts are kept
// in a file and used again by the next run against the same deployment; those of
// a deployment that has forgotten them are dropped.
package crowd
