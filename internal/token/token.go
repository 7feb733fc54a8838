// Package token makes and checks access tokens: JWTs signed with Ed25519 by
// the auth service and verified by gateways, which hold public keys only and
// so cannot mint any.
//
// Exactly one form of token exists. The header is {"alg":"EdDSA","typ":"at+jwt",
// "kid":...} and nothing else; the claims are those of [Claims] in JSON, as the
// public protocol and RFC 7519 name them. Verify refuses everything else, even
// what other JWT libraries would tolerate (repeated members, numbers written as
// text or as fractions, other spellings of one base64 value).
package token

import (
	"errors"
	"time"

	"im-services/internal/im"
)

// What auth writes into tokens and gateways demand of them, unless both are
// configured otherwise.
const (
	DefaultIssuer   = "im-services"
	DefaultAudience = "im"
	// DefaultLeeway is how far clocks of auth and gateways may be apart.
	DefaultLeeway = time.Minute
)

// MaxLen is the length of the longest token that Verify looks at, in bytes.
// Sign makes none that is longer.
const MaxLen = 4096

const (
	algorithm = "EdDSA"
	tokenType = "at+jwt"
	maxKidLen = 64
)

// ErrUnknownKey is the cause of a Verify error when the token names a key that
// the verifier does not hold. After a key rotation that means "fetch the keys
// again, then verify once more"; for a forged token it means nothing.
var ErrUnknownKey = errors.New("token: unknown key")

// Claims is who the bearer of a token is, as of IssuedAt.
type Claims struct {
	UserID im.UserID
	Name   string
	Email  string
	// Avatar is a URL, or a path under the deployment's public URL.
	Avatar string
	// SessionID names the login session; ending that session ends the token.
	SessionID string
	// IssuedAt and ExpiresAt have whole seconds.
	IssuedAt  time.Time
	ExpiresAt time.Time
}

func invalid(cause error) error { return im.E(im.KindUnauthorized, "token_invalid", cause) }

func expired(cause error) error { return im.E(im.KindUnauthorized, "token_expired", cause) }
