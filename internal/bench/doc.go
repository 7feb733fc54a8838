// Package bench measures a running system over its public protocol and checks
// it while it measures.
//
//	run.go        a run: connections, flows of messages, phases
//	client.go     one user's connection and what it receives
//	flow.go       one user's messages into one conversation
//	check.go      what must hold: nothing lost, repeated, reordered or altered
//	pace.go       sending at a given rate, measured from the intended times
//	scenario_*.go the scenarios
//	compare.go    the same scenario against a bare relay and the system, in turn
//	result.go     figures and checks of a run, as JSON
//	report.go     the same as one HTML page with plots
//
// Every message is numbered by its sender and carries its number in its key and
// in its text. Receivers note what arrives, so that a run ends with an exact
// account and not with a sample. Latency in an open loop counts from the moment
// a message was due, whether or not the generator or the system was ready.
//
// The generator shares its machine with what it measures. It reports its own
// processor time and that of strangers beside every figure.
package bench
