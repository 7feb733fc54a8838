package auth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
	"im-services/internal/platform/cache"
	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
	"im-services/internal/testkit"
	"im-services/internal/token"
)

const goodPassword = "correct horse 电池"

// env is one replica of the service over real servers.
type env struct {
	*Server
	t     *testing.T
	db    *sqlx.DB
	rdb   *redis.Client
	redis *testkit.RedisServer
	dsn   string
	logs  *buffer
	mails *mailbox
	off   time.Duration // how far the database's clock is from ours

	// redisTimeout of an operation; 0: as in service, which a busy test machine
	// may well take.
	redisTimeout time.Duration
}

// newEnv starts a replica in release mode whose mails land in e.mails.
func newEnv(t *testing.T, change ...func(*Config)) *env {
	t.Helper()
	return newEnvWithin(t, 2*time.Second, change...)
}

// newEnvWithin is newEnv with a limit of its own for operations of Redis.
func newEnvWithin(t *testing.T, redisTimeout time.Duration, change ...func(*Config)) *env {
	t.Helper()
	e := &env{t: t, dsn: testkit.MySQL(t), redis: testkit.StartRedis(t), redisTimeout: redisTimeout}
	migrate(t, e.dsn)
	e.start(change...)
	return e
}

// migrate brings a database to this version; a change of schema takes as long as
// it takes.
func migrate(t *testing.T, dsn string) {
	t.Helper()
	db, err := database.Open(t.Context(), database.Config{DSN: config.Secret(dsn)}.ForMigration())
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	require.NoError(t, database.Migrate(t.Context(), db, Migrations, MigrationsDir, VersionTable))
}

// replica starts another one over the same servers.
func (e *env) replica(change ...func(*Config)) *env {
	other := &env{t: e.t, dsn: e.dsn, redis: e.redis, redisTimeout: e.redisTimeout}
	other.start(change...)
	return other
}

func (e *env) start(change ...func(*Config)) {
	e.t.Helper()
	e.db = openDB(e.t, e.dsn)
	e.rdb = cache.Open(cache.Config{Addr: e.redis.Addr, OpTimeout: e.redisTimeout})
	e.t.Cleanup(func() { _ = e.rdb.Close() })
	e.logs, e.mails = &buffer{}, &mailbox{}
	cfg := testConfig()
	for _, f := range change {
		f(&cfg)
	}
	log := slog.New(slog.NewTextHandler(e.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := New(e.t.Context(), cfg, e.db, e.rdb, log, prometheus.NewRegistry())
	require.NoError(e.t, err)
	s.mailer = e.mails
	e.Server = s
}

func testConfig() Config {
	return Config{
		Hash: HashConfig{Wait: time.Minute}, // the machine may be busy
		Mail: MailConfig{Driver: "smtp", SMTP: SMTPConfig{Host: "127.0.0.1", From: "im@example.com"}},
	}
}

// debugMode accepts any code, does not limit addresses and hashes cheaply.
func debugMode(c *Config) {
	c.Mode = ModeDebug
	c.Hash.MemoryKiB, c.Hash.Passes = 512, 1
	c.Limits.LoginsPerMinute, c.Limits.CodesPerHour = 100_000, 100_000
}

// fullHashes is the cost of production.
func fullHashes(c *Config) { c.Hash.MemoryKiB, c.Hash.Passes = 19456, 2 }

func openDB(t *testing.T, dsn string) *sqlx.DB {
	t.Helper()
	db, err := database.Open(t.Context(), database.Config{DSN: config.Secret(dsn), MaxOpen: 16})
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// hold locks a user's row until release: nobody can log in, or change it.
func (e *env) hold(email string) (release func()) {
	e.t.Helper()
	// A pool of its own, or the database would take it for one that was forgotten.
	db, err := database.Open(e.t.Context(), database.Config{DSN: config.Secret(e.dsn), IdleTx: time.Minute})
	require.NoError(e.t, err)
	tx, err := db.Beginx()
	require.NoError(e.t, err)
	_, err = tx.Exec("UPDATE users SET bio = 'held' WHERE email = ?", email)
	require.NoError(e.t, err)
	return func() {
		require.NoError(e.t, tx.Rollback())
		require.NoError(e.t, db.Close())
	}
}

var userSerial atomic.Int64

// newUser registers a user of his own name (debug mode only).
func (e *env) newUser() *authv1.User {
	e.t.Helper()
	n := userSerial.Add(1)
	return e.registerAs(fmt.Sprintf("user%d@example.com", n), fmt.Sprintf("user %d", n))
}

func (e *env) registerAs(email, name string) *authv1.User {
	e.t.Helper()
	res, err := e.Register(e.t.Context(), &authv1.RegisterRequest{Email: email, Name: name, Password: goodPassword, Code: "0000"})
	require.NoError(e.t, err)
	return res.GetUser()
}

func (e *env) mustLogin(email string) *authv1.LoggedIn {
	e.t.Helper()
	res, err := e.Login(e.t.Context(), &authv1.LoginRequest{Email: email, Password: goodPassword})
	require.NoError(e.t, err)
	return res.GetLogin()
}

// verify checks a token as a gateway would whose clock is the database's.
func (e *env) verify(raw string) (token.Claims, error) {
	e.t.Helper()
	res, err := e.Keys(e.t.Context(), &authv1.KeysRequest{})
	require.NoError(e.t, err)
	keys := map[string]ed25519.PublicKey{}
	for _, k := range res.GetKeys() {
		keys[k.GetKid()] = k.GetKey()
	}
	return token.NewVerifier(keys, token.DefaultIssuer, token.DefaultAudience, token.DefaultLeeway+e.off).Verify(raw)
}

func (e *env) mustVerify(raw string) token.Claims {
	e.t.Helper()
	c, err := e.verify(raw)
	require.NoError(e.t, err)
	return c
}

// revoked reports whether the feed hits a token, as a gateway decides it.
func (e *env) revoked(c token.Claims) bool {
	e.t.Helper()
	res, err := e.Revocations(e.t.Context(), &authv1.RevocationsRequest{})
	require.NoError(e.t, err)
	for _, r := range res.GetRevocations() {
		if r.GetUserId() == int64(c.UserID) &&
			(r.GetSessionId() == c.SessionID || r.GetSessionId() == "" && c.IssuedAt.Unix() < r.GetNotBefore()) {
			return true
		}
	}
	return false
}

func requireReason(t *testing.T, want string, err error, msg ...any) {
	t.Helper()
	require.Error(t, err, msg...)
	require.Equal(t, want, im.ReasonOf(err), msg...)
}

// buffer collects logs.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// mailbox is a mailer that keeps the last code of an address.
type mailbox struct {
	mu    sync.Mutex
	codes map[string]string
	sent  int
	err   error
}

func (m *mailbox) sendCode(_ context.Context, to, purpose, code string, _ time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	if m.codes == nil {
		m.codes = map[string]string{}
	}
	m.codes[purpose+" "+to] = code
	m.sent++
	return nil
}

func (m *mailbox) code(purpose, to string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.codes[purpose+" "+to]
}

const (
	forRegister = authv1.CodePurpose_CODE_PURPOSE_REGISTER
	forReset    = authv1.CodePurpose_CODE_PURPOSE_RESET
)

// ask has a code sent and returns it.
func (e *env) ask(email string, p authv1.CodePurpose) string {
	e.t.Helper()
	_, err := e.SendEmailCode(e.t.Context(), &authv1.SendEmailCodeRequest{Email: email, Purpose: p})
	require.NoError(e.t, err)
	code := e.mails.code(purposeName(p), email)
	require.Regexp(e.t, `^[0-9]{4}$`, code)
	return code
}

// otherCode returns a code that is not the given one.
func otherCode(code string, n int) string {
	for i := 0; ; i++ {
		if c := fmt.Sprintf("%04d", (i*7+n)%10_000); c != code {
			return c
		}
	}
}

func (c *LimitConfig) addExempt(cidr string) error {
	p, err := netip.ParsePrefix(cidr)
	c.Exempt = append(c.Exempt, p)
	return err
}

func argonOf(password, salt string, memory, cost uint32) string {
	return base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte(password), []byte(salt), cost, memory, 1, argonKey))
}
