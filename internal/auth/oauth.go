package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"
	"golang.org/x/oauth2"
	"golang.org/x/text/unicode/norm"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
	"im-services/internal/names"
	"im-services/internal/platform/database"
)

const (
	stateKind = "oauth"
	// stateTTL is how long a user may take at the provider's page.
	stateTTL = 10 * time.Minute
	// A state is a nonce and its end (Unix ms) in eight bytes, and a MAC.
	stateNonce = 16
	stateBody  = stateNonce + 8
	// maxCode bounds a provider's code.
	maxCode = 512
	// The columns' sizes, in characters.
	maxBioRunes  = 512
	maxAvatarLen = 512
)

func oauthFailed(cause error) error { return im.E(im.KindForbidden, "oauth_failed", cause) }

func stateInvalid(cause error) error { return im.E(im.KindForbidden, "oauth_state_invalid", cause) }

// oauthState is what a state stands for.
type oauthState struct {
	Redirect string
	Verifier string // PKCE
}

// provider finds the configured provider of a name; "" means github.
func (s *Server) provider(name string) (*provider, error) {
	if name == "" {
		name = "github"
	}
	p, known := s.providers[name]
	switch {
	case !known:
		return nil, im.E(im.KindInvalid, "provider_invalid", nil)
	case p == nil:
		return nil, im.E(im.KindInvalid, "provider_off", nil)
	}
	return p, nil
}

func (s *Server) oauthURL(ctx context.Context, name, redirect string) (page, state string, err error) {
	p, err := s.provider(name)
	if err != nil {
		return "", "", err
	}
	redirect, err = p.redirect(redirect)
	if err != nil {
		return "", "", err
	}
	now, err := dbTime(ctx, s.store.db)
	if err != nil {
		return "", "", storeError(err)
	}
	state, verifier := s.newState(p.name, redirect, now.Add(stateTTL))
	return p.conf(redirect).AuthCodeURL(state, oauth2.S256ChallengeOption(verifier)), state, nil
}

// newState makes a state and its PKCE verifier. Anybody may ask for states, so they
// are kept by the browser alone, not by us: a state is a nonce and when it ends,
// and a MAC of these with what it was given out for; the verifier is another MAC.
func (s *Server) newState(provider, redirect string, ends time.Time) (state, verifier string) {
	body := make([]byte, stateBody)
	binary.BigEndian.PutUint64(body[stateNonce:], uint64(ends.UnixMilli())) //nolint:gosec // after 1970
	nonce := body[:stateNonce]
	_, _ = rand.Read(nonce) // never fails
	signed := slices.Concat(body, s.stateMAC(provider, redirect, body))
	return base64.RawURLEncoding.EncodeToString(signed), s.stateVerifier(body)
}

func (s *Server) stateMAC(provider, redirect string, body []byte) []byte {
	return s.mac("oauth state", provider+"\x00"+redirect+"\x00"+string(body))
}

func (s *Server) stateVerifier(body []byte) string {
	return base64.RawURLEncoding.EncodeToString(s.mac("oauth verifier", string(body)))
}

// checkState spends a state, which must be one we gave out for this provider.
func (s *Server) checkState(ctx context.Context, p *provider, state, redirect string) (oauthState, error) {
	if state == "" {
		if s.cfg.OAuth.RequireState {
			return oauthState{}, stateInvalid(errors.New("missing"))
		}
		redirect, err := p.redirect(redirect)
		return oauthState{Redirect: redirect}, err
	}
	if len(state) != base64.RawURLEncoding.EncodedLen(stateBody+sha256.Size) {
		return oauthState{}, stateInvalid(errors.New("malformed"))
	}
	signed, err := base64.RawURLEncoding.DecodeString(state)
	if err != nil || len(signed) != stateBody+sha256.Size {
		return oauthState{}, stateInvalid(errors.New("malformed"))
	}
	body, sum := signed[:stateBody], signed[stateBody:]
	// Which redirect it was given out for, the MAC says: it is one of a few.
	for _, candidate := range p.redirects() {
		if (redirect == "" || redirect == candidate) && hmac.Equal(sum, s.stateMAC(p.name, candidate, body)) {
			return oauthState{Redirect: candidate, Verifier: s.stateVerifier(body)}, s.spendState(ctx, body)
		}
	}
	return oauthState{}, stateInvalid(errors.New("not ours, or not for this"))
}

// spendState fails if a state, which is ours, is over or was used.
func (s *Server) spendState(ctx context.Context, body []byte) error {
	now, err := dbTime(ctx, s.store.db)
	if err != nil {
		return storeError(err)
	}
	left := time.UnixMilli(int64(binary.BigEndian.Uint64(body[stateNonce:]))).Sub(now) //nolint:gosec // we wrote it
	if left <= 0 || left > stateTTL {
		return stateInvalid(errors.New("over"))
	}
	first, err := s.vault.spend(ctx, stateKind, string(body), stateTTL)
	if err == nil && !first {
		err = stateInvalid(errors.New("used before"))
	}
	return err
}

func (s *Server) loginOAuth(ctx context.Context, in *authv1.LoginOAuthRequest) (*authv1.LoggedIn, error) {
	if err := s.limitPeer(ctx, "login", in.GetPeerIp(), s.cfg.Limits.LoginsPerMinute, time.Minute); err != nil {
		return nil, err
	}
	p, err := s.provider(in.GetProvider())
	if err != nil {
		return nil, err
	}
	if in.GetCode() == "" || len(in.GetCode()) > maxCode {
		return nil, oauthFailed(errors.New("no usable code"))
	}
	st, err := s.checkState(ctx, p, in.GetState(), in.GetRedirectUri())
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, s.cfg.OAuth.Timeout)
	defer cancel()
	who, err := p.identify(bounded, in.GetCode(), st)
	if err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "log in by provider failed", slog.String("provider", p.name), slog.Any("err", err))
		return nil, oauthFailed(err)
	}
	a, created, err := s.accountOf(ctx, p.name, who)
	if err != nil {
		return nil, err
	}
	out, err := s.enter(ctx, a.ID, a.Password, "", nil)
	if err != nil {
		return nil, err
	}
	out.Created = created
	s.log.LogAttrs(ctx, slog.LevelInfo, "logged in", slog.Int64("user_id", int64(a.ID)), slog.String("method", p.name), slog.Bool("created", created))
	return out, nil
}

// accountOf returns the account of an identity and makes it the first time.
func (s *Server) accountOf(ctx context.Context, provider string, who subject) (a account, created bool, err error) {
	a, err = s.store.accountByIdentity(ctx, provider, who.ID)
	if !errors.Is(err, errNoRow) {
		return a, false, err
	}
	id, err := s.ids.take(ctx)
	if err != nil {
		return account{}, false, err
	}
	for _, name := range nameCandidates(provider, who) {
		a = account{
			ID: id, Name: name, NameKey: nameKey(name), Email: sql.NullString{}, ShownEmail: who.email(),
			Avatar: who.avatar(), Bio: who.bio(), ClientType: clientWeb,
		}
		if a.Avatar == "" {
			a.Avatar = generatedAvatar(id)
		}
		err = s.store.inTx(ctx, func(tx *sqlx.Tx) error {
			now, err := dbTime(ctx, tx)
			if err != nil {
				return err
			}
			a.CreatedAt = now.UnixMilli()
			if err := insertAccount(ctx, tx, a); err != nil {
				return err
			}
			return insertIdentity(ctx, tx, provider, who.ID, id, now)
		})
		if err == nil {
			return a, true, nil
		}
		if !database.IsDuplicate(err) {
			return account{}, false, err
		}
		// The name is taken, or the same person is logging in twice at once.
		if other, err := s.store.accountByIdentity(ctx, provider, who.ID); !errors.Is(err, errNoRow) {
			return other, false, err
		}
	}
	return account{}, false, im.E(im.KindInternal, "internal", errors.New("every name for the new account is taken"))
}

// nameCandidates are the names to try for a new account, the wanted one first.
// The last ones nobody else can want by accident.
func nameCandidates(provider string, who subject) []string {
	wanted, ok := who.name()
	if !ok {
		wanted = provider
	}
	var out []string
	add := func(suffix string) {
		base := []rune(wanted)
		base = base[:min(len(base), maxNameRunes-utf8.RuneCountInString(suffix))]
		if name, err := cleanName(string(base) + suffix); err == nil {
			out = append(out, name)
		}
	}
	if ok {
		add("")
	}
	add("-" + provider)
	add(fmt.Sprintf("-%d", who.ID))
	for range 3 {
		add("-" + strings.ToLower(newSecretText()[:8]))
	}
	return out
}

// subject is what a provider says about a user. Everything but ID may be null,
// missing or nonsense.
type subject struct {
	ID        int64
	Login     *string
	Name      *string
	Email     *string
	AvatarURL *string
	Bio       *string
	preferred *string
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return strings.ToValidUTF8(*p, "")
}

// name returns the first usable one of the names.
func (w subject) name() (string, bool) {
	for _, p := range []*string{w.preferred, w.Login, w.Name} {
		kept := strings.Map(func(r rune) rune {
			if names.Hidden(r) {
				return -1
			}
			return r
		}, norm.NFC.String(text(p)))
		runes := []rune(strings.TrimSpace(kept))
		if name, err := cleanName(string(runes[:min(len(runes), maxNameRunes)])); err == nil {
			return name, true
		}
	}
	return "", false
}

// email is for display: the provider vouches for it, or nobody does.
func (w subject) email() string {
	email, err := cleanEmail(text(w.Email))
	if err != nil {
		return ""
	}
	return email
}

// avatar returns the picture's URL if it is an absolute http(s) one.
func (w subject) avatar() string {
	raw := text(w.AvatarURL)
	u, err := url.Parse(raw)
	if err != nil || len(raw) > maxAvatarLen || u.Host == "" || u.User != nil || (u.Scheme != "https" && u.Scheme != "http") {
		return ""
	}
	return u.String()
}

func (w subject) bio() string {
	runes := []rune(strings.TrimSpace(strings.ReplaceAll(text(w.Bio), "\x00", "")))
	return string(runes[:min(len(runes), maxBioRunes)])
}

// redirects are the redirect URIs that redirect may return.
func (p *provider) redirects() []string {
	if len(p.cfg.RedirectURIs) == 0 {
		return []string{""} // the provider's own
	}
	return p.cfg.RedirectURIs
}

// redirect returns the redirect URI to use: one of the configured ones.
func (p *provider) redirect(wanted string) (string, error) {
	if wanted == "" {
		return p.redirects()[0], nil
	}
	if slices.Contains(p.cfg.RedirectURIs, wanted) {
		return wanted, nil
	}
	return "", im.E(im.KindInvalid, "oauth_redirect_invalid", nil)
}
