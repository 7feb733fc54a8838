package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"im-services/internal/im"
)

// payload is the JSON of the claims. id, uid, name, email and expire_time are
// the names of the public protocol, which clients may read.
type payload struct {
	Issuer    string `json:"iss"`
	Audience  string `json:"aud"`
	Subject   string `json:"sub"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	ExpiresAt int64  `json:"exp"`

	ID         int64  `json:"id"`
	UID        string `json:"uid"`
	Name       string `json:"name"`
	Email      string `json:"email"`
	Avatar     string `json:"avatar"`
	SessionID  string `json:"sid"`
	ExpireTime int64  `json:"expire_time"`
}

// UnmarshalJSON accepts what Sign writes, and members it does not know, which a
// newer auth may add during a rolling upgrade.
func (p *payload) UnmarshalJSON(data []byte) error {
	m, err := object(data)
	if err != nil {
		return err
	}
	if err := errors.Join(
		m.text("iss", &p.Issuer), m.text("aud", &p.Audience), m.text("sub", &p.Subject),
		m.integer("iat", &p.IssuedAt), m.integer("nbf", &p.NotBefore), m.integer("exp", &p.ExpiresAt),
		m.integer("id", &p.ID), m.text("uid", &p.UID), m.integer("expire_time", &p.ExpireTime),
		m.text("name", &p.Name), m.text("email", &p.Email), m.text("avatar", &p.Avatar), m.text("sid", &p.SessionID),
	); err != nil {
		return err
	}
	id := im.UserID(p.ID)
	switch {
	case p.Subject != id.String() || p.UID != id.UID():
		return errors.New("sub, id and uid disagree")
	case p.ExpireTime != p.ExpiresAt:
		return errors.New("exp and expire_time disagree")
	case p.ExpiresAt <= p.IssuedAt:
		return errors.New("exp not after iat")
	case p.SessionID == "":
		return errors.New("sid is empty")
	}
	return nil
}

// members are the members of a JSON object, none named twice.
type members map[string]json.RawMessage

// object parses one JSON object in valid UTF-8 and nothing after it.
func object(data []byte) (members, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	m := members{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := tok.(string)
		if !ok {
			return nil, errors.New("member without a name")
		}
		if _, dup := m[name]; dup {
			return nil, errors.New("member given twice")
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		m[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if dec.InputOffset() != int64(len(bytes.TrimRight(data, " \t\r\n"))) {
		return nil, errors.New("data after the object")
	}
	return m, nil
}

// text reads a member that must be a string.
func (m members) text(name string, into *string) error {
	raw := m[name]
	if len(raw) == 0 || raw[0] != '"' {
		return fmt.Errorf("%s is not text", name)
	}
	return json.Unmarshal(raw, into)
}

// integer reads a member that must be a positive whole number that JavaScript
// holds exactly, written without fraction or exponent.
func (m members) integer(name string, into *int64) error {
	raw := string(m[name])
	n, err := strconv.ParseInt(raw, 10, 64)
	if err != nil || n <= 0 || n > im.MaxID || raw[0] == '+' {
		return fmt.Errorf("%s is not a positive integer", name)
	}
	*into = n
	return nil
}

// The methods of jwt.Claims, for the library's validator.

func (p *payload) GetExpirationTime() (*jwt.NumericDate, error) { return date(p.ExpiresAt), nil }
func (p *payload) GetIssuedAt() (*jwt.NumericDate, error)       { return date(p.IssuedAt), nil }
func (p *payload) GetNotBefore() (*jwt.NumericDate, error)      { return date(p.NotBefore), nil }
func (p *payload) GetIssuer() (string, error)                   { return p.Issuer, nil }
func (p *payload) GetSubject() (string, error)                  { return p.Subject, nil }
func (p *payload) GetAudience() (jwt.ClaimStrings, error)       { return jwt.ClaimStrings{p.Audience}, nil }

func date(unix int64) *jwt.NumericDate { return jwt.NewNumericDate(time.Unix(unix, 0)) }
