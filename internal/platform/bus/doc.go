// Package bus carries opaque messages over NSQ. It is the only package that
// knows NSQ.
//
// Delivery is at least once while a topic lives and may fail silently (memory
// only, ephemeral topics, a frozen nsqd): handlers are idempotent and the
// caller has a slower way to notice a loss. One topic published through one
// nsqd keeps its order; Producer uses one nsqd at a time for that reason.
//
// The package speaks the protocol with the codec of go-nsq but owns its
// sockets: go-nsq's own producer can block for a minute on a frozen nsqd, and
// its consumer reports neither connecting nor losing a connection.
package bus
