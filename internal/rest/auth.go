package rest

import (
	"unicode/utf8"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
	"im-services/internal/wire"
)

// codeLoginFailed is the code of every failed login, whatever the cause.
const codeLoginFailed = 500

// Lengths of a password, in characters.
const (
	minPassword = 6
	maxPassword = 128
)

func (c *call) loginBody(l *authv1.LoggedIn) wire.LoginBody {
	id := im.UserID(l.GetUser().GetId())
	if id.Valid() {
		c.profiles.cache.Add(id, l.GetUser()) // he sees his own login at once
	}
	return wire.LoginBody{
		ID: id, UID: id.UID(), Name: l.GetUser().GetName(),
		Avatar: c.avatar(l.GetUser().GetAvatar(), id), Email: l.GetUser().GetEmail(),
		Token: l.GetAccessToken(), ExpireTime: l.GetExpiresAt(), TTL: l.GetTtlSeconds(),
		RefreshToken: l.GetRefreshToken(),
	}
}

func login(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, withCode(codeLoginFailed, err)
	}
	req := &authv1.LoginRequest{
		Email:    in.textOr("email", "email_invalid"),
		Password: in.textOr("password", "password_missing"),
		PeerIp:   c.peerIP(),
	}
	if err := in.err(); err != nil {
		return nil, withCode(codeLoginFailed, err)
	}
	resp, err := c.Auth.Login(c.ctx(), req)
	if err != nil {
		return nil, withCode(codeLoginFailed, err)
	}
	return c.loginBody(resp.GetLogin()), nil
}

// newPassword reads a password that is being set.
func (f *form) newPassword() string {
	p := f.text("password")
	if n := utf8.RuneCountInString(p); n < minPassword || n > maxPassword {
		f.refuse("password_invalid")
	}
	if f.text("password_repeat") != p {
		f.refuse("password_repeat_wrong")
	}
	return p
}

func (f *form) emailCode() string {
	code := f.text("code")
	if utf8.RuneCountInString(code) != 4 {
		f.refuse("code_invalid")
	}
	return code
}

func register(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	req := &authv1.RegisterRequest{
		Email:    in.textOr("email", "email_invalid"),
		Name:     in.textOr("name", "name_invalid"),
		Password: in.newPassword(),
		Code:     in.emailCode(),
		PeerIp:   c.peerIP(),
	}
	in.number("email_type", 1, 1, 2, "email_type_invalid")
	if err := in.err(); err != nil {
		return nil, err
	}
	_, err = c.Auth.Register(c.ctx(), req)
	return nil, err
}

func sendEmailCode(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	req := &authv1.SendEmailCodeRequest{
		Email:   in.textOr("email", "email_invalid"),
		Purpose: authv1.CodePurpose(in.number("email_type", 1, 1, 2, "email_type_invalid")), //nolint:gosec // 1 or 2
		PeerIp:  c.peerIP(),
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	_, err = c.Auth.SendEmailCode(c.ctx(), req)
	return nil, err
}

func resetPassword(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	req := &authv1.ResetPasswordRequest{
		Email:    in.textOr("email", "email_invalid"),
		Code:     in.emailCode(),
		Password: in.newPassword(),
		PeerIp:   c.peerIP(),
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	_, err = c.Auth.ResetPassword(c.ctx(), req)
	return nil, err
}

// provider reads the login provider of an OAuth endpoint.
func (f *form) provider() string {
	p := f.text("login_type")
	switch {
	case absent(p):
		return "github"
	case p != "github" && p != "gitee":
		f.refuse("provider_invalid")
	}
	return p
}

func oauthLogin(c *call) (any, error) {
	in, err := c.query()
	if err != nil {
		return nil, withCode(codeLoginFailed, err)
	}
	req := &authv1.LoginOAuthRequest{
		Provider:    in.provider(),
		Code:        in.textOr("code", "parameter_missing"),
		State:       in.text("state"),
		RedirectUri: in.text("redirect_uri"),
		PeerIp:      c.peerIP(),
	}
	if err := in.err(); err != nil {
		return nil, withCode(codeLoginFailed, err)
	}
	resp, err := c.Auth.LoginOAuth(c.ctx(), req)
	if err != nil {
		return nil, withCode(codeLoginFailed, err)
	}
	return c.loginBody(resp.GetLogin()), nil
}

func oauthURL(c *call) (any, error) {
	in, err := c.query()
	if err != nil {
		return nil, withCode(codeLoginFailed, err)
	}
	req := &authv1.OAuthURLRequest{Provider: in.provider(), RedirectUri: in.text("redirect_uri")}
	if err := in.err(); err != nil {
		return nil, withCode(codeLoginFailed, err)
	}
	resp, err := c.Auth.OAuthURL(c.ctx(), req)
	if err != nil {
		return nil, withCode(codeLoginFailed, err)
	}
	return wire.OAuthURLBody{URL: resp.GetUrl(), State: resp.GetState()}, nil
}

func refresh(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	t := in.textOr("refresh_token", "parameter_missing")
	if err := in.err(); err != nil {
		return nil, err
	}
	resp, err := c.Auth.Refresh(c.ctx(), &authv1.RefreshRequest{RefreshToken: t, PeerIp: c.peerIP()})
	if err != nil {
		return nil, err
	}
	l := resp.GetLogin()
	return wire.RefreshBody{
		Token: l.GetAccessToken(), RefreshToken: l.GetRefreshToken(),
		ExpireTime: l.GetExpiresAt(), TTL: l.GetTtlSeconds(),
	}, nil
}

func logout(c *call) (any, error) {
	_, err := c.Auth.Logout(c.ctx(), &authv1.LogoutRequest{UserId: int64(c.me), SessionId: c.who.SessionID})
	return nil, err
}

func wsTicket(c *call) (any, error) {
	resp, err := c.Auth.IssueTicket(c.ctx(), &authv1.IssueTicketRequest{Identity: &authv1.Identity{
		UserId: int64(c.me), Name: c.who.Name, Email: c.who.Email, Avatar: c.who.Avatar,
		SessionId: c.who.SessionID, ExpiresAt: c.who.ExpiresAt.Unix(), IssuedAt: c.who.IssuedAt.Unix(),
	}})
	if err != nil {
		return nil, err
	}
	return wire.TicketBody{Ticket: resp.GetTicket(), ExpiresIn: resp.GetExpiresInSeconds()}, nil
}
