// Package check is the delivery checker: it makes people talk through a running
// system while processes and links fail, and then says whether the system kept
// its promises.
//
//	v, err := check.Run(ctx, check.Options{Seed: 7, Duration: 2 * time.Minute})
//	v.Green()
//
// # How it works
//
// Clients that speak only the public protocol (internal/imclient) write all they
// do and see into one history. The workload and the schedule of faults follow
// from one seed, with a source of randomness of its own for every actor. When
// the time is up the faults are healed, the system gets time to settle, every
// client reads everything it may see, and the database is read as it stands.
// All of this is appended to the same history, so that a history judges itself:
//
//	events, err := check.ReadHistory(file)
//	v := check.Judge(events, check.Bounds{})
//
// # What is judged
//
// The invariants I1 to I17, in the files judge*.go and uploads.go. An operation
// whose outcome is not known may take effect at any later time; it is never
// counted as failed.
//
// A message carries a canary: conversation, sender, client message id, a nonce
// and a code over them, so that a message that turns up in a place where it does
// not belong, or with another sender, or changed, is recognised by itself.
package check
