package rest

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	_ "time/tzdata" // zones on machines that have none

	"github.com/prometheus/client_golang/prometheus"

	authv1 "im-services/api/proto/auth/v1"
	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/token"
	"im-services/internal/upload"
)

// Config is what a deployment may set.
type Config struct {
	// PublicURL is the absolute URL clients reach the API under, without a
	// trailing slash. File and avatar URLs are built from it, never from a
	// request's Host.
	PublicURL string `yaml:"public_url"`
	// TimeZone is the IANA zone of the times in bodies. Default Asia/Shanghai.
	TimeZone string `yaml:"time_zone"`
	// UploadLimit is the largest file accepted, in bytes. Default 50 MiB.
	UploadLimit int64 `yaml:"upload_limit"`
	// UploadConcurrency bounds the uploads running at once, UploadsPerUser those of
	// one user. Defaults 64 and 4.
	UploadConcurrency int `yaml:"upload_concurrency"`
	UploadsPerUser    int `yaml:"uploads_per_user"`
	// UploadQuota is what the files of one user may take in all, in bytes, each 8 KiB
	// more than its size. 0: no bound.
	UploadQuota int64 `yaml:"upload_quota"`
	// Downloads bounds the files that are being fetched at once, DownloadsPerHost those of
	// one host, which may be a proxy of many people. Defaults 1,024 and 128.
	Downloads        int `yaml:"downloads"`
	DownloadsPerHost int `yaml:"downloads_per_host"`
	// ReadsPerUser bounds the pages and lists of one user that are made at once, and
	// the answers of more than 64 KiB that he has not read yet. Default 8.
	ReadsPerUser int `yaml:"reads_per_user"`
	// BodyLimit is the largest other body accepted, in bytes, and 64 KiB without a
	// login. Default 1 MiB.
	BodyLimit int64 `yaml:"body_limit"`
	// BodyBudget is how much of such bodies is held at once, in bytes; an eighth of it
	// for one user, and for all together who are not logged in. Default 32 MiB.
	BodyBudget int64 `yaml:"body_budget"`
	// RequestTimeout bounds the work on one request, from when its body has been read.
	// Default 10 s: clients give up after 20.
	RequestTimeout time.Duration `yaml:"request_timeout"`
	// TrustedProxies are the networks whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`
	// ProfileTTL is how long a profile may be shown after it changed. Default 30 s.
	ProfileTTL time.Duration `yaml:"profile_ttl"`
	// ProfileCache is the number of profiles kept. Default 50,000.
	ProfileCache int `yaml:"profile_cache"`
	// DocsOff leaves out /swagger/.
	DocsOff bool `yaml:"docs_off"`
}

// DefaultUploadQuota is for whoever has no other: 10 GiB.
const DefaultUploadQuota = 10 << 30

// Deps is what the handlers work with. All are required but Log and Registry.
type Deps struct {
	Auth          authv1.AuthServiceClient
	Friend        friendv1.FriendServiceClient
	Messages      logicv1.MessageServiceClient
	Conversations logicv1.ConversationServiceClient
	Groups        logicv1.GroupServiceClient
	// Send stores a message. An error of another kind than im.KindUnknown means that it
	// is not stored and will not be.
	Send func(ctx context.Context, s *logicv1.Send) (*logicv1.SendResult, error)
	// Verify checks an access token. It is called for every request and must be
	// fast and safe for concurrent use.
	Verify func(token string) (token.Claims, error)
	// SleptSince reports whether the process was found to have been asleep at t or
	// later. It is called before every send and must be fast.
	SleptSince func(t time.Time) bool
	Log        *slog.Logger
	// Registry takes the metrics; nil measures for nobody.
	Registry prometheus.Registerer
	// Uploads holds the uploaded files; its owner closes it.
	Uploads *upload.Store
	Config  Config
}

// withDefaults fills in what was left out and reports what cannot work.
func (c Config) withDefaults() (Config, error) {
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	if c.TimeZone == "" {
		c.TimeZone = "Asia/Shanghai"
	}
	if c.UploadLimit == 0 {
		c.UploadLimit = 50 << 20
	}
	if c.UploadConcurrency == 0 {
		c.UploadConcurrency = 64
	}
	if c.UploadsPerUser == 0 {
		c.UploadsPerUser = 4
	}
	if c.Downloads == 0 {
		c.Downloads = 1024
	}
	if c.DownloadsPerHost == 0 {
		c.DownloadsPerHost = 128
	}
	if c.ReadsPerUser == 0 {
		c.ReadsPerUser = 8
	}
	if c.BodyLimit == 0 {
		c.BodyLimit = 1 << 20
	}
	if c.BodyBudget == 0 {
		c.BodyBudget = max(32<<20, c.BodyLimit)
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 10 * time.Second
	}
	if c.ProfileTTL == 0 {
		c.ProfileTTL = 30 * time.Second
	}
	if c.ProfileCache == 0 {
		c.ProfileCache = 50_000
	}
	return c, c.Validate()
}

// Validate reports the first value that cannot work; zero values mean defaults.
func (c Config) Validate() error {
	u, err := url.Parse(c.PublicURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("rest: public_url must be an absolute http or https URL")
	}
	if c.UploadLimit < 0 || c.UploadConcurrency < 0 || c.UploadsPerUser < 0 || c.UploadQuota < 0 || c.Downloads < 0 || c.DownloadsPerHost < 0 || c.ReadsPerUser < 0 || c.BodyLimit < 0 || c.BodyBudget < 0 || c.RequestTimeout < 0 || c.ProfileTTL < 0 || c.ProfileCache < 0 {
		return errors.New("rest: limits must not be negative")
	}
	if c.BodyBudget != 0 && c.BodyBudget < c.BodyLimit {
		return errors.New("rest: body_budget must have room for a body of body_limit")
	}
	if _, err := time.LoadLocation(c.TimeZone); err != nil {
		return errors.New("rest: time_zone: " + err.Error())
	}
	return nil
}

// New builds the handler of the whole HTTP surface except the socket. It
// starts nothing that outlives a request.
func New(deps Deps) (http.Handler, error) {
	cfg, err := deps.Config.withDefaults()
	if err != nil {
		return nil, err
	}
	deps.Config = cfg
	if deps.Auth == nil || deps.Friend == nil || deps.Messages == nil || deps.Conversations == nil ||
		deps.Groups == nil || deps.Send == nil || deps.Verify == nil || deps.SleptSince == nil || deps.Uploads == nil {
		return nil, errors.New("rest: a dependency is missing")
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	zone, err := time.LoadLocation(cfg.TimeZone)
	if err != nil {
		return nil, err
	}
	a := &api{
		Deps:     deps,
		zone:     zone,
		profiles: newProfiles(deps.Auth, cfg.ProfileCache, cfg.ProfileTTL),
		uploads:  newSlots[im.UserID](cfg.UploadConcurrency, cfg.UploadsPerUser),
		reads:    newSlots[im.UserID](math.MaxInt, cfg.ReadsPerUser),
		unread:   newSlots[im.UserID](math.MaxInt, cfg.ReadsPerUser),
		bodies:   newSlots[im.UserID](int(cfg.BodyBudget), int(max(cfg.BodyBudget/8, cfg.BodyLimit))),
		files:    newSlots[string](cfg.Downloads, cfg.DownloadsPerHost),
		metrics:  newMetrics(deps.Registry),
	}
	return a.routes()
}
