package auth

import (
	"crypto/ed25519"

	authv1 "im-services/api/proto/auth/v1"
)

func pbUser(a account) *authv1.User {
	return &authv1.User{
		Id: int64(a.ID), Name: a.Name, Email: a.email(), Avatar: a.Avatar, Bio: a.Bio,
		Sex: int32(a.Sex), Age: int32(a.Age), ClientType: int32(a.ClientType),
		LastLoginAtMs: a.LastLoginAt, Bot: a.Bot, CreatedAtMs: a.CreatedAt,
	}
}

func pbUsers(accounts []account) []*authv1.User {
	out := make([]*authv1.User, len(accounts))
	for i, a := range accounts {
		out[i] = pbUser(a)
	}
	return out
}

func pbKey(k signingKey) *authv1.PublicKey {
	public, _ := k.private().Public().(ed25519.PublicKey)
	return &authv1.PublicKey{Kid: k.Kid, Key: public}
}

func pbRevocation(r revocation) *authv1.Revocation {
	return &authv1.Revocation{
		Id: r.ID, UserId: int64(r.UserID), SessionId: r.SessionID, NotBefore: r.NotBefore, ExpiresAt: r.ExpiresAt,
	}
}
