package token

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"im-services/internal/im"
)

// Verifier checks tokens against a set of public keys. Its methods may be
// called concurrently.
type Verifier struct {
	keys      atomic.Pointer[map[string]ed25519.PublicKey]
	parser    *jwt.Parser
	validator *jwt.Validator
}

// NewVerifier returns a Verifier that knows keys by their kid and accepts
// tokens of issuer for audience. leeway is forgiven on every point in time.
func NewVerifier(keys map[string]ed25519.PublicKey, issuer, audience string, leeway time.Duration) *Verifier {
	v := &Verifier{
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{algorithm}),
			jwt.WithStrictDecoding(),
			jwt.WithoutClaimsValidation(), // done below, by the validator
		),
		validator: jwt.NewValidator(
			jwt.WithIssuer(issuer),
			jwt.WithAudience(audience),
			jwt.WithLeeway(leeway),
			jwt.WithIssuedAt(),
			jwt.WithExpirationRequired(),
			jwt.WithNotBeforeRequired(),
		),
	}
	v.SetKeys(keys)
	return v
}

// SetKeys replaces all keys. Keys of a wrong size are left out.
func (v *Verifier) SetKeys(keys map[string]ed25519.PublicKey) {
	usable := maps.Clone(keys)
	maps.DeleteFunc(usable, func(_ string, k ed25519.PublicKey) bool { return len(k) != ed25519.PublicKeySize })
	v.keys.Store(&usable)
}

// Verify returns the claims of a genuine, live token. Otherwise the error is an
// *im.Error of KindUnauthorized: "token_expired" for a genuine token past its
// time, "token_invalid" for all else. The error never contains the token.
func (v *Verifier) Verify(raw string) (Claims, error) {
	if err := checkForm(raw); err != nil {
		return Claims{}, invalid(err)
	}
	var p payload
	if _, err := v.parser.ParseWithClaims(raw, &p, v.keyOf); err != nil {
		if errors.Is(err, ErrUnknownKey) {
			return Claims{}, invalid(ErrUnknownKey)
		}
		return Claims{}, invalid(err)
	}
	if p.ID == 0 { // a JSON null in place of the claims leaves them as they were
		return Claims{}, invalid(errors.New("no claims"))
	}
	if err := v.validator.Validate(&p); err != nil {
		// Only a token that is sound otherwise may be called expired.
		if errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenInvalidIssuer) &&
			!errors.Is(err, jwt.ErrTokenInvalidAudience) {
			return Claims{}, expired(err)
		}
		return Claims{}, invalid(err)
	}
	return Claims{
		UserID: im.UserID(p.ID), Name: p.Name, Email: p.Email, Avatar: p.Avatar, SessionID: p.SessionID,
		IssuedAt: time.Unix(p.IssuedAt, 0), ExpiresAt: time.Unix(p.ExpiresAt, 0),
	}, nil
}

// keyOf looks the kid up in the map, the only place a key may come from.
func (v *Verifier) keyOf(t *jwt.Token) (any, error) {
	kid, _ := t.Header["kid"].(string)
	key, ok := (*v.keys.Load())[kid]
	if !ok {
		return nil, ErrUnknownKey
	}
	return key, nil
}

// checkForm refuses what is not one of our tokens before any cryptography: the
// JWT library would take the last of two equal header members, skip line breaks
// in base64 and ignore members it does not know.
func checkForm(raw string) error {
	if len(raw) > MaxLen {
		return errors.New("too long")
	}
	for i := range len(raw) {
		c := raw[i]
		if c != '.' && c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return errors.New("character outside base64url")
		}
	}
	head, rest, ok := strings.Cut(raw, ".")
	if !ok || strings.Count(rest, ".") != 1 {
		return errors.New("not three parts")
	}
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(head)
	if err != nil {
		return err
	}
	members, err := object(decoded)
	if err != nil {
		return err
	}
	if len(members) != 3 {
		return errors.New("header members other than alg, typ, kid")
	}
	var alg, typ, kid string
	if err := errors.Join(
		members.text("alg", &alg), members.text("typ", &typ), members.text("kid", &kid),
	); err != nil {
		return err
	}
	switch {
	case alg != algorithm:
		return errors.New("wrong algorithm")
	case typ != tokenType:
		return errors.New("wrong type")
	case kid == "" || len(kid) > maxKidLen:
		return errors.New("bad key id")
	}
	return nil
}
