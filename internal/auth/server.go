package auth

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
)

const (
	purgeInterval = time.Minute
	purgeBatch    = 1000
)

// Server implements auth.v1.AuthService. Safe for concurrent use. Errors are
// *im.Error. It trusts that an Identity or a user id in a request was verified
// by the caller, and takes peer_ip as the caller says.
//
// Login, Register and ResetPassword hash a password and may wait for a slot;
// SendEmailCode and LoginOAuth wait for other servers. Give these calls more
// than the usual deadline: ten seconds.
type Server struct {
	authv1.UnsafeAuthServiceServer

	cfg       Config
	store     store
	ids       *userIDs
	keys      *keyring
	hasher    *hasher
	limits    *limiter
	codes     *codes
	vault     *vault
	mailer    mailer
	providers map[string]*provider
	profiles  *profiles
	secret    []byte // keys the MACs of codes and addresses
	log       *slog.Logger
	metrics   metrics
}

var _ authv1.AuthServiceServer = (*Server)(nil)

// New makes a Server over a database with this package's migrations applied. It
// makes what a first start lacks: the signing key, a secret, the bot. It does
// not need Redis to be there.
func New(ctx context.Context, cfg Config, db *sqlx.DB, rdb *redis.Client, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.WithDefaults()
	st := store{db: db}
	secret, err := st.ensureSecret(ctx, "mac")
	if err != nil {
		return nil, fmt.Errorf("auth: secret: %w", err)
	}
	if err := st.ensureKey(ctx); err != nil {
		return nil, fmt.Errorf("auth: signing key: %w", err)
	}
	if err := st.ensureBot(ctx, cfg.Bot); err != nil {
		return nil, fmt.Errorf("auth: bot: %w", err)
	}
	keys := &keyring{store: st, issuer: cfg.Issuer, audience: cfg.Audience}
	if err := keys.reload(ctx); err != nil {
		return nil, fmt.Errorf("auth: signing keys: %w", err)
	}
	m, err := newMailer(cfg.Mail, log)
	if err != nil {
		return nil, err
	}
	if cfg.Mode == ModeDebug {
		log.LogAttrs(ctx, slog.LevelWarn, "debug mode: any four characters pass as an e-mail code, also to set a new password")
	}
	met := newMetrics(reg)
	return &Server{
		cfg:       cfg,
		store:     st,
		ids:       &userIDs{store: st},
		keys:      keys,
		hasher:    newHasher(cfg.Hash),
		limits:    newLimiter(rdb, cfg.Limits, met.fallbacks),
		codes:     &codes{rdb: rdb, cfg: cfg.Codes},
		vault:     &vault{rdb: rdb},
		mailer:    m,
		providers: newProviders(cfg.OAuth),
		profiles:  newProfiles(cfg.ProfileCache, cfg.ProfileTTL),
		secret:    secret,
		log:       log,
		metrics:   met,
	}, nil
}

// Run picks up rotated keys and deletes what has expired until ctx ends. Its
// failures are logged and tried again; it returns nil.
func (s *Server) Run(ctx context.Context) error {
	reload := time.NewTicker(keyReload)
	defer reload.Stop()
	purge := time.NewTimer(rand.N(purgeInterval)) //nolint:gosec // replicas should not all purge at once
	defer purge.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-reload.C:
			s.attend(ctx, "reload keys", s.keys.reload)
		case <-purge.C:
			s.attend(ctx, "purge", s.purge)
			purge.Reset(purgeInterval/2 + rand.N(purgeInterval)) //nolint:gosec // jitter
		}
	}
}

func (s *Server) attend(ctx context.Context, task string, f func(context.Context) error) {
	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := f(bounded); err != nil && ctx.Err() == nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "upkeep failed", slog.String("task", task), slog.Any("err", err))
	}
}

func (s *Server) purge(ctx context.Context) error {
	for {
		n, err := s.store.purge(ctx, purgeBatch)
		if err != nil || n < purgeBatch {
			return err
		}
	}
}

// SendEmailCode mails a code for one purpose to one address.
func (s *Server) SendEmailCode(ctx context.Context, in *authv1.SendEmailCodeRequest) (*authv1.SendEmailCodeResponse, error) {
	if err := s.sendCode(ctx, in.GetEmail(), in.GetPurpose(), in.GetPeerIp()); err != nil {
		return nil, err
	}
	return &authv1.SendEmailCodeResponse{}, nil
}

// Register makes an account. It answers what is taken: e-mail or name.
func (s *Server) Register(ctx context.Context, in *authv1.RegisterRequest) (*authv1.RegisterResponse, error) {
	a, err := s.register(ctx, in)
	if err != nil {
		return nil, err
	}
	return &authv1.RegisterResponse{User: pbUser(a)}, nil
}

// Login begins a login session by password. An unknown address and a wrong
// password are one error and take one time.
func (s *Server) Login(ctx context.Context, in *authv1.LoginRequest) (*authv1.LoginResponse, error) {
	l, err := s.login(ctx, in.GetEmail(), in.GetPassword(), in.GetPeerIp())
	s.metrics.logins.WithLabelValues("password", resultOf(err)).Inc()
	if err != nil {
		return nil, err
	}
	return &authv1.LoginResponse{Login: l}, nil
}

// LoginOAuth begins a login session by a provider's code and makes the account
// at the first time. Accounts are told apart by provider and the provider's
// number, never by e-mail.
func (s *Server) LoginOAuth(ctx context.Context, in *authv1.LoginOAuthRequest) (*authv1.LoginOAuthResponse, error) {
	l, err := s.loginOAuth(ctx, in)
	s.metrics.logins.WithLabelValues("oauth", resultOf(err)).Inc()
	if err != nil {
		return nil, err
	}
	return &authv1.LoginOAuthResponse{Login: l}, nil
}

// OAuthURL returns a provider's authorize page with a fresh, single-use state. It
// stores nothing: anybody may ask.
func (s *Server) OAuthURL(ctx context.Context, in *authv1.OAuthURLRequest) (*authv1.OAuthURLResponse, error) {
	url, state, err := s.oauthURL(ctx, in.GetProvider(), in.GetRedirectUri())
	if err != nil {
		return nil, err
	}
	return &authv1.OAuthURLResponse{Url: url, State: state}, nil
}

// Refresh exchanges a refresh token for a new one and a new access token. It may
// be repeated for a minute, until the new one is used; the last answer counts. Any
// other use of a token that was exchanged before ends its login session. Who is
// refused for too many still has his token.
func (s *Server) Refresh(ctx context.Context, in *authv1.RefreshRequest) (*authv1.RefreshResponse, error) {
	l, err := s.refresh(ctx, in.GetRefreshToken(), in.GetPeerIp())
	if err != nil {
		return nil, err
	}
	return &authv1.RefreshResponse{Login: l}, nil
}

// Logout ends a login session. Ending one that is not live, or not the user's,
// changes nothing and is no error.
func (s *Server) Logout(ctx context.Context, in *authv1.LogoutRequest) (*authv1.LogoutResponse, error) {
	if err := s.logout(ctx, im.UserID(in.GetUserId()), in.GetSessionId()); err != nil {
		return nil, err
	}
	return &authv1.LogoutResponse{}, nil
}

// ResetPassword sets a new password by e-mail code and ends all login sessions
// of the user.
func (s *Server) ResetPassword(ctx context.Context, in *authv1.ResetPasswordRequest) (*authv1.ResetPasswordResponse, error) {
	if err := s.resetPassword(ctx, in); err != nil {
		return nil, err
	}
	return &authv1.ResetPasswordResponse{}, nil
}

// IssueTicket makes a single-use ticket for one socket connect.
func (s *Server) IssueTicket(ctx context.Context, in *authv1.IssueTicketRequest) (*authv1.IssueTicketResponse, error) {
	ticket, ttl, err := s.issueTicket(ctx, in.GetIdentity())
	if err != nil {
		return nil, err
	}
	return &authv1.IssueTicketResponse{Ticket: ticket, ExpiresInSeconds: int64(ttl / time.Second)}, nil
}

// RedeemTicket returns the identity of a ticket, once, unless its login session
// has ended since.
func (s *Server) RedeemTicket(ctx context.Context, in *authv1.RedeemTicketRequest) (*authv1.RedeemTicketResponse, error) {
	id, err := s.redeemTicket(ctx, in.GetTicket())
	if err != nil {
		return nil, err
	}
	return &authv1.RedeemTicketResponse{Identity: id}, nil
}

// Keys returns the public keys of access tokens, newest first: at most two, and
// one more while all are being replaced. A new key is in the answer before it signs.
func (s *Server) Keys(context.Context, *authv1.KeysRequest) (*authv1.KeysResponse, error) {
	out := &authv1.KeysResponse{}
	for _, k := range *s.keys.keys.Load() {
		out.Keys = append(out.Keys, pbKey(k))
	}
	return out, nil
}

// Revocations returns what was revoked after a cursor and still matters, oldest
// first, at most 5,000: after a full answer, ask again with its last id.
func (s *Server) Revocations(ctx context.Context, in *authv1.RevocationsRequest) (*authv1.RevocationsResponse, error) {
	found, err := s.store.revocations(ctx, in.GetAfter(), maxRevocations)
	if err != nil {
		return nil, err
	}
	out := &authv1.RevocationsResponse{Revocations: make([]*authv1.Revocation, len(found))}
	for i, r := range found {
		out.Revocations[i] = pbRevocation(r)
	}
	return out, nil
}

// GetUsers returns the users that exist among at most 1,000 ids, in no
// particular order. An answer may be as old as Config.ProfileTTL.
func (s *Server) GetUsers(ctx context.Context, in *authv1.GetUsersRequest) (*authv1.GetUsersResponse, error) {
	found, err := s.getUsers(ctx, in.GetIds())
	if err != nil {
		return nil, err
	}
	return &authv1.GetUsersResponse{Users: pbUsers(found)}, nil
}

// SearchUsers returns users, no bots, whose e-mail or name begins with the
// query (all if it is empty), newest login first.
func (s *Server) SearchUsers(ctx context.Context, in *authv1.SearchUsersRequest) (*authv1.SearchUsersResponse, error) {
	found, err := s.searchUsers(ctx, in.GetQuery(), in.GetExcludeIds(), int(in.GetLimit()))
	if err != nil {
		return nil, err
	}
	return &authv1.SearchUsersResponse{Users: pbUsers(found)}, nil
}
