// Package rest is the HTTP edge: it turns requests of the public protocol into
// calls of the services and their answers into the bodies clients expect. It
// holds no state of its own but caches.
//
// A handler is a function that returns the value of the envelope's `data`
// member or an error; respond.go turns both into bytes, and is the only place
// that knows which error travels under which code. Who may do what is decided
// by the services, which are told the caller's verified id; a handler checks
// the form of a request only.
package rest
