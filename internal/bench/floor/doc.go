// Package floor holds what the system is compared with: the least that has to be
// paid on the same machine for a part of what it does.
//
//	relay.go  a bare in-memory relay on the same WebSocket library: no storage,
//	          no checks, no second process
//	store.go  rows stored with an fsync per commit, by batch size
//	bus.go    messages through NSQ, one by one and in batches
package floor
