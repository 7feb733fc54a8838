// Package rpc is how services call each other: gRPC servers and clients that
// share one idea of errors, deadlines, health and liveness.
//
// Errors. An *im.Error returned by a handler reaches the caller as an
// *im.Error with the same Kind, Reason and RetryAfter; its cause stays in the
// server's log. Every error of a client made here is an *im.Error. When no
// answer came, a unary call that may have reached a server and is not among those
// of WithRetry is of KindUnknown ("answer_lost"): it may have been carried out. Any
// other is of KindUnavailable ("service_unavailable"): it reached nobody, or
// changes nothing, or it is a stream, whose user knows what he has sent.
//
// Deadlines. Every unary call has one. The server leaves a little of it to
// report its own timeout and refuses work that nobody waits for any more. What may
// be repeated is asked of another server when one has not answered in two seconds;
// anything else waits as long as its server shows that it lives, for it may just
// take long: a password is hashed when its turn comes.
//
// Liveness. A server sends its health twice a second on every connection; a
// client that hears nothing for silenceLimit closes the connection. That finds
// a frozen or unreachable peer in less than three seconds, which keep-alive
// pings (ten seconds at least in grpc-go) cannot.
package rpc
