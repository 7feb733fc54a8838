package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"im-services/internal/token"
)

// The modes of the service.
const (
	// ModeRelease is the default.
	ModeRelease = "release"
	// ModeDebug accepts any four characters as an e-mail code, also for setting
	// a new password. It is for machines that nobody else can reach.
	ModeDebug = "debug"
)

// Config is the service's own section of the configuration. Zero values mean
// the defaults. Secrets are not read from it: cmd/auth puts them in.
type Config struct {
	// Mode is release or debug.
	Mode string `yaml:"mode"`
	// Issuer and Audience are written into access tokens; gateways demand the same.
	Issuer   string `yaml:"issuer"`
	Audience string `yaml:"audience"`
	// AccessTTL is the life of an access token. The default of 640,000 s is for
	// clients that never refresh; a revocation ends a token long before.
	AccessTTL time.Duration `yaml:"access_ttl"`
	// RefreshTTL is how long a refresh token waits for its use, SessionTTL the
	// longest a login session can be drawn out by refreshing.
	RefreshTTL time.Duration `yaml:"refresh_ttl"`
	SessionTTL time.Duration `yaml:"session_ttl"`
	// TicketTTL is the life of a socket ticket.
	TicketTTL time.Duration `yaml:"ticket_ttl"`
	// ProfileTTL is how old an answer of GetUsers may be, ProfileCache how many
	// profiles are kept for that.
	ProfileTTL   time.Duration `yaml:"profile_ttl"`
	ProfileCache int           `yaml:"profile_cache"`

	Bot    BotConfig   `yaml:"bot"`
	Codes  CodeConfig  `yaml:"codes"`
	Limits LimitConfig `yaml:"limits"`
	Hash   HashConfig  `yaml:"hash"`
	Mail   MailConfig  `yaml:"mail"`
	OAuth  OAuthConfig `yaml:"oauth"`
}

// BotConfig describes user 1.
type BotConfig struct {
	Name   string `yaml:"name"`
	Email  string `yaml:"email"`
	Avatar string `yaml:"avatar"`
}

// CodeConfig bounds e-mail codes.
type CodeConfig struct {
	// TTL is the life of a code.
	TTL time.Duration `yaml:"ttl"`
	// Resend is the pause between two mails to an address, PerHour the most mails
	// to it in an hour.
	Resend  time.Duration `yaml:"resend"`
	PerHour int           `yaml:"per_hour"`
	// Tries is how many wrong guesses kill a code. After TriesPerDay of them in a
	// day no code to the address counts for its purpose until the day is over.
	Tries       int `yaml:"tries"`
	TriesPerDay int `yaml:"tries_per_day"`
}

// LimitConfig bounds attempts.
type LimitConfig struct {
	// LoginsPerMinute is per address: logins, registrations and resets together.
	// A network (/24, or /48 of IPv6) gets four times as many.
	LoginsPerMinute int `yaml:"logins_per_minute"`
	// RefreshesPerMinute is per user, whatever the addresses. An address has ten times
	// as many.
	RefreshesPerMinute int `yaml:"refreshes_per_minute"`
	// CodesPerHour is how many mails an address may ask for.
	CodesPerHour int `yaml:"codes_per_hour"`
	// Exempt are networks whose addresses are not limited, such as a load
	// generator's. Accounts are limited all the same.
	Exempt []netip.Prefix `yaml:"exempt"`
	// FreeAttempts wrong passwords cost an account nothing; each further one
	// doubles the pause, from BaseDelay to MaxDelay.
	FreeAttempts int           `yaml:"free_attempts"`
	BaseDelay    time.Duration `yaml:"base_delay"`
	MaxDelay     time.Duration `yaml:"max_delay"`
}

// HashConfig bounds password hashing: 19 MiB and about 30 ms of a core each.
type HashConfig struct {
	Concurrent int `yaml:"concurrent"`
	// MaxWaiting calls may wait for a free slot, each for Wait at most.
	MaxWaiting int           `yaml:"max_waiting"`
	Wait       time.Duration `yaml:"wait"`
	// MemoryKiB and Passes are the cost of argon2id: 19456 and 2. Less is allowed
	// in debug mode only, for machines that must register crowds. A hash of
	// another cost is replaced when its owner logs in.
	MemoryKiB int `yaml:"memory_kib"`
	Passes    int `yaml:"passes"`
}

// MailConfig says how e-mail codes travel.
type MailConfig struct {
	// Driver is smtp, or log, which writes codes to the log (debug mode only).
	Driver string     `yaml:"driver"`
	SMTP   SMTPConfig `yaml:"smtp"`
}

// SMTPConfig is the mail server. Security is starttls (default), tls or none.
type SMTPConfig struct {
	Host     string        `yaml:"host"`
	Port     int           `yaml:"port"`
	Username string        `yaml:"username"`
	Password string        `yaml:"-"`
	From     string        `yaml:"from"`
	Security string        `yaml:"security"`
	Timeout  time.Duration `yaml:"timeout"`
	// Concurrent is how many mails may be under way at once.
	Concurrent int `yaml:"concurrent"`
}

// OAuthConfig is how users of other sites log in.
type OAuthConfig struct {
	// RequireState refuses a login without the state that OAuthURL gave out. The
	// unmodified web client has none; a state that is given is always checked.
	RequireState bool `yaml:"require_state"`
	// AllowPrivateAddresses lets providers be on loopback or private addresses.
	AllowPrivateAddresses bool `yaml:"allow_private_addresses"`
	// Timeout bounds the exchange of one code.
	Timeout time.Duration  `yaml:"timeout"`
	GitHub  ProviderConfig `yaml:"github"`
	Gitee   ProviderConfig `yaml:"gitee"`
}

// ProviderConfig is one provider; without a ClientID it is off.
type ProviderConfig struct {
	ClientID     string `yaml:"client_id"`
	ClientSecret string `yaml:"-"`
	AuthorizeURL string `yaml:"authorize_url"`
	TokenURL     string `yaml:"token_url"`
	UserURL      string `yaml:"user_url"`
	// RedirectURIs are the only ones used; the first is the default.
	RedirectURIs []string `yaml:"redirect_uris"`
}

// WithDefaults returns c with every zero value replaced by its default.
func (c Config) WithDefaults() Config {
	def(&c.Mode, ModeRelease)
	def(&c.Issuer, token.DefaultIssuer)
	def(&c.Audience, token.DefaultAudience)
	def(&c.AccessTTL, 640_000*time.Second)
	def(&c.RefreshTTL, 30*24*time.Hour)
	def(&c.SessionTTL, 180*24*time.Hour)
	def(&c.TicketTTL, 30*time.Second)
	def(&c.ProfileTTL, 5*time.Second)
	def(&c.ProfileCache, 50_000)
	def(&c.Bot.Name, "机器人")
	def(&c.Bot.Email, "bot@im.invalid")
	def(&c.Bot.Avatar, "/avatars/1.png")
	def(&c.Codes.TTL, 5*time.Minute)
	def(&c.Codes.Resend, time.Minute)
	def(&c.Codes.PerHour, 5)
	def(&c.Codes.Tries, 5)
	def(&c.Codes.TriesPerDay, 10)
	def(&c.Limits.LoginsPerMinute, 30)
	def(&c.Limits.RefreshesPerMinute, 60)
	def(&c.Limits.CodesPerHour, 20)
	def(&c.Limits.FreeAttempts, 5)
	def(&c.Limits.BaseDelay, 10*time.Second)
	def(&c.Limits.MaxDelay, 15*time.Minute)
	def(&c.Hash.Concurrent, 4)
	def(&c.Hash.MaxWaiting, 256)
	def(&c.Hash.Wait, 5*time.Second)
	def(&c.Hash.MemoryKiB, 19456)
	def(&c.Hash.Passes, 2)
	def(&c.Mail.Driver, "smtp")
	def(&c.Mail.SMTP.Security, "starttls")
	def(&c.Mail.SMTP.Port, 587)
	def(&c.Mail.SMTP.Timeout, 10*time.Second)
	def(&c.Mail.SMTP.Concurrent, 16)
	def(&c.OAuth.Timeout, 8*time.Second)
	def(&c.OAuth.GitHub.AuthorizeURL, "https://github.com/login/oauth/authorize")
	def(&c.OAuth.GitHub.TokenURL, "https://github.com/login/oauth/access_token")
	def(&c.OAuth.GitHub.UserURL, "https://api.github.com/user")
	def(&c.OAuth.Gitee.AuthorizeURL, "https://gitee.com/oauth/authorize")
	def(&c.OAuth.Gitee.TokenURL, "https://gitee.com/oauth/token")
	def(&c.OAuth.Gitee.UserURL, "https://gitee.com/api/v5/user")
	return c
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Validate reports every value that cannot work.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var errs []error
	bad := func(cond bool, format string, args ...any) {
		if cond {
			errs = append(errs, fmt.Errorf("auth: "+format, args...))
		}
	}
	bad(c.Mode != ModeRelease && c.Mode != ModeDebug, "mode must be release or debug")
	for name, d := range map[string]time.Duration{
		"access_ttl": c.AccessTTL, "refresh_ttl": c.RefreshTTL, "session_ttl": c.SessionTTL, "ticket_ttl": c.TicketTTL,
		"codes.ttl": c.Codes.TTL, "codes.resend": c.Codes.Resend, "limits.base_delay": c.Limits.BaseDelay,
		"limits.max_delay": c.Limits.MaxDelay, "mail.smtp.timeout": c.Mail.SMTP.Timeout, "oauth.timeout": c.OAuth.Timeout,
	} {
		bad(d < time.Second, "%s must be at least 1s", name)
	}
	bad(c.ProfileTTL < 0 || c.Hash.Wait < 0, "profile_ttl and hash.wait must not be negative")
	for name, n := range map[string]int{
		"profile_cache": c.ProfileCache, "codes.per_hour": c.Codes.PerHour, "codes.tries": c.Codes.Tries, "codes.tries_per_day": c.Codes.TriesPerDay,
		"limits.logins_per_minute": c.Limits.LoginsPerMinute, "limits.refreshes_per_minute": c.Limits.RefreshesPerMinute, "limits.codes_per_hour": c.Limits.CodesPerHour,
		"limits.free_attempts": c.Limits.FreeAttempts, "hash.concurrent": c.Hash.Concurrent,
		"hash.max_waiting": c.Hash.MaxWaiting, "mail.smtp.concurrent": c.Mail.SMTP.Concurrent,
	} {
		bad(n < 1, "%s must be at least 1", name)
	}
	bad(c.Hash.MemoryKiB < 64 || c.Hash.MemoryKiB > 1<<18 || c.Hash.Passes < 1 || c.Hash.Passes > 16,
		"hash.memory_kib must be 64..262144 and hash.passes 1..16")
	bad(c.Mode != ModeDebug && (c.Hash.MemoryKiB < 19456 || c.Hash.Passes < 2),
		"hash.memory_kib must be at least 19456 and hash.passes at least 2 outside debug mode")
	bad(c.TicketTTL > 5*time.Minute, "ticket_ttl must be at most 5m")
	bad(c.Codes.TTL > 10*time.Minute, "codes.ttl must be at most 10m")
	bad(c.Codes.Tries > 10, "codes.tries must be at most 10: a code has four digits")
	bad(c.Codes.TriesPerDay > 100, "codes.tries_per_day must be at most 100: a code has four digits")
	bad(c.AccessTTL > c.SessionTTL, "access_ttl must not be longer than session_ttl")
	if _, err := cleanName(c.Bot.Name); err != nil {
		bad(true, "bot.name: %v", err)
	}
	if _, err := cleanEmail(c.Bot.Email); err != nil {
		bad(true, "bot.email: %v", err)
	}
	errs = append(errs, c.validateMail(), c.validateOAuth())
	return errors.Join(errs...)
}

func (c Config) validateMail() error {
	m := c.Mail
	switch m.Driver {
	case "log":
		if c.Mode != ModeDebug {
			return errors.New("auth: mail.driver log shows every code to readers of the log: allowed in debug mode only")
		}
		return nil
	case "smtp":
		if m.SMTP.Host == "" {
			return errors.New("auth: mail.smtp.host is needed, or mail.driver log in debug mode")
		}
		if _, err := cleanEmail(m.SMTP.From); err != nil {
			return errors.New("auth: mail.smtp.from must be a plain address")
		}
		switch m.SMTP.Security {
		case "starttls", "tls":
			return nil
		case "none":
			if m.SMTP.Username != "" {
				return errors.New("auth: mail.smtp.security none would send the password in the clear")
			}
			return nil
		}
		return errors.New("auth: mail.smtp.security must be starttls, tls or none")
	}
	return errors.New("auth: mail.driver must be smtp or log")
}

func (c Config) validateOAuth() error {
	var errs []error
	for name, p := range map[string]ProviderConfig{"github": c.OAuth.GitHub, "gitee": c.OAuth.Gitee} {
		if p.ClientID == "" {
			continue
		}
		for _, raw := range []string{p.AuthorizeURL, p.TokenURL, p.UserURL} {
			u, err := url.Parse(raw)
			if err != nil || u.Host == "" || (u.Scheme != "https" && (u.Scheme != "http" || !c.OAuth.AllowPrivateAddresses)) {
				errs = append(errs, fmt.Errorf("auth: oauth.%s: URLs must be https", name))
				break
			}
		}
		for _, raw := range p.RedirectURIs {
			if u, err := url.Parse(raw); err != nil || u.Host == "" || !strings.HasPrefix(u.Scheme, "http") {
				errs = append(errs, fmt.Errorf("auth: oauth.%s: redirect_uris must be absolute URLs", name))
				break
			}
		}
	}
	return errors.Join(errs...)
}
