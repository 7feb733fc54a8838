package token

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
)

// Signer makes tokens with one key. Its methods may be called concurrently.
type Signer struct {
	kid      string
	key      ed25519.PrivateKey
	issuer   string
	audience string
}

// NewSigner returns a Signer whose tokens name kid as their key. It panics on a
// key of the wrong size, as ed25519.Sign would at the first token.
func NewSigner(kid string, key ed25519.PrivateKey, issuer, audience string) *Signer {
	if len(key) != ed25519.PrivateKeySize {
		panic(fmt.Sprintf("token: private key of %d bytes", len(key)))
	}
	return &Signer{kid: kid, key: key, issuer: issuer, audience: audience}
}

// Kid returns the name of the signing key.
func (s *Signer) Kid() string { return s.kid }

// Sign returns the token for c. Times are cut to whole seconds. It fails only
// on claims that Verify would refuse.
func (s *Signer) Sign(c Claims) (string, error) {
	iat, exp := c.IssuedAt.Unix(), c.ExpiresAt.Unix()
	switch {
	case !c.UserID.Valid():
		return "", errors.New("token: user id out of range")
	case c.SessionID == "":
		return "", errors.New("token: no session id")
	case iat <= 0 || exp <= iat:
		return "", errors.New("token: expires before it is issued")
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, &payload{
		Issuer: s.issuer, Audience: s.audience, Subject: c.UserID.String(),
		IssuedAt: iat, NotBefore: iat, ExpiresAt: exp, ExpireTime: exp,
		ID: int64(c.UserID), UID: c.UserID.UID(),
		Name: c.Name, Email: c.Email, Avatar: c.Avatar, SessionID: c.SessionID,
	})
	t.Header["typ"] = tokenType
	t.Header["kid"] = s.kid
	signed, err := t.SignedString(s.key)
	if err != nil {
		return "", fmt.Errorf("token: sign: %w", err)
	}
	if len(signed) > MaxLen {
		return "", errors.New("token: claims too long")
	}
	return signed, nil
}
