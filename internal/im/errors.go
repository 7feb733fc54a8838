package im

import (
	"errors"
	"fmt"
	"time"
)

// Kind classifies an error for whoever must react to it. It is the only thing,
// with Reason, Msg and RetryAfter, that survives an RPC.
type Kind uint8

// The kinds of error.
const (
	KindInternal     Kind = iota // a fault of ours; details stay in the log
	KindInvalid                  // the request can never succeed as it is
	KindUnauthorized             // no, bad or expired identity
	KindForbidden                // the actor may not do this
	KindNotFound                 // the object does not exist for this actor
	KindConflict                 // the object exists already or its state forbids this
	KindExhausted                // a limit was hit: retry after RetryAfter
	KindUnavailable              // a dependency is away: nothing was done, retry is safe
	KindUnknown                  // it may or may not have happened: retry with the same key
)

var kindNames = [...]string{
	"internal", "invalid", "unauthorized", "forbidden",
	"not_found", "conflict", "exhausted", "unavailable", "unknown",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "internal"
}

// Error is the one error type that crosses processes. Reason is a stable
// snake_case key into the error catalogue (package catalog), where the texts
// that users see are; Err is the cause and stays in this process.
type Error struct {
	Kind       Kind
	Reason     string
	RetryAfter time.Duration
	Err        error
}

// E makes an Error; cause may be nil.
func E(kind Kind, reason string, cause error) *Error {
	return &Error{Kind: kind, Reason: reason, Err: cause}
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s (%s): %v", e.Reason, e.Kind, e.Err)
	}
	return fmt.Sprintf("%s (%s)", e.Reason, e.Kind)
}

func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an *Error with the same Reason, so that
// errors.Is works on errors that came over the wire.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error) //nolint:errorlint // Is compares this link of the chain only
	return ok && t.Reason == e.Reason
}

// KindOf returns the kind of err, KindInternal if it is not one of ours.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return KindInternal
}

// ReasonOf returns the reason of err, "internal" if it is not one of ours.
func ReasonOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Reason != "" {
		return e.Reason
	}
	return "internal"
}
