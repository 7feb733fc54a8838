// Package lean is the load generator's client: the public protocol with as few
// allocations and system calls as it takes, because the generator shares its
// machine with what it measures.
//
// It speaks plain HTTP to upgrade, then frames WebSocket itself on the net.Conn,
// builds chat frames by appending and reads the few members it needs with a
// parser of its own. Frames are masked with a key of zero, which the protocol
// allows and costs the client nothing; a server cannot tell and does its part.
package lean
