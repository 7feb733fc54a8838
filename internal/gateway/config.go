package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config is what a deployment may set. Zero values mean the defaults, which
// are in the comments.
type Config struct {
	// Listen is the public address, default ":8000". With ReusePort several
	// gateways of one machine share it.
	Listen    string `yaml:"listen"`
	ReusePort bool   `yaml:"reuse_port"`
	// OwnListen is an address of this gateway alone; empty: none.
	OwnListen string `yaml:"own_listen"`
	// TimeZone of the times in frames, an IANA name. Default Asia/Shanghai.
	TimeZone string `yaml:"time_zone"`

	// AllowedOrigins are scheme://host[:port] of the pages that may connect.
	// Default: any. With a list, a request without Origin must carry its token
	// in a header.
	AllowedOrigins []string `yaml:"allowed_origins"`
	// TrustedProxies are the networks whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`
	// RefuseQueryTokens takes access tokens in headers only; tickets stay
	// welcome in the query.
	RefuseQueryTokens bool `yaml:"refuse_query_tokens"`
	// MultiDevice is what happens to an older connection of the same user and
	// platform: "displace" (default) or "allow". Logic has the same setting.
	MultiDevice string `yaml:"multi_device"`

	// MaxConnections of this process. Default 18,000.
	MaxConnections int `yaml:"max_connections"`
	// ConnectRate is how many connections one address, or /64 of IPv6, may open per minute.
	// Default 0: no limit.
	ConnectRate int `yaml:"connect_rate"`
	// FrameRate is how many frames per second a connection may send in the long
	// run, FrameBurst how many at once. Defaults 20,000 and 40,000, which only stop
	// a flood; negative: no limit.
	FrameRate  int `yaml:"frame_rate"`
	FrameBurst int `yaml:"frame_burst"`
	// Window is how many sends of a connection may be unanswered before no more
	// are read; WindowBytes bounds their size. A user's sends over HTTP have the same
	// together. Defaults 256 and 1 MiB.
	Window      int `yaml:"window"`
	WindowBytes int `yaml:"window_bytes"`
	// OutboxBytes is what may be queued for one connection, and of pushes that came
	// too early as much again. Default 256 KiB. Half of it should hold the answers to
	// a full Window, some 128 bytes each.
	OutboxBytes int `yaml:"outbox_bytes"`
	// SocketBuffer is the kernel's send buffer per connection. Default 128 KiB.
	SocketBuffer int `yaml:"socket_buffer"`
	// WriteTimeout ends a connection whose peer accepts nothing. Default 5 s.
	WriteTimeout time.Duration `yaml:"write_timeout"`
	// PingInterval between pings, PongTimeout to hear anything after one: a client
	// that vanished is known to be away after both. Defaults 23 s and 10 s.
	PingInterval time.Duration `yaml:"ping_interval"`
	PongTimeout  time.Duration `yaml:"pong_timeout"`

	// SendFailover is how long a lane to logic may be silent with sends
	// outstanding before they go to the next, and how long a send may be on its way
	// to logic until it is not taken any more. Default 2 s.
	SendFailover time.Duration `yaml:"send_failover"`
	// SendTimeout is when a send that went to logic and has no answer is given up, as
	// unknown. One that never left this process is refused after SendFailover.
	// Default 5 s.
	SendTimeout time.Duration `yaml:"send_timeout"`
	// PendingBytes bounds the sends that wait for logic. Default 64 MiB.
	PendingBytes int `yaml:"pending_bytes"`

	// Hold is how long a push that came too early waits for the one before.
	// Default 100 ms.
	Hold time.Duration `yaml:"hold"`
	// SyncConcurrency bounds the backlogs read at once, but for those that wait for
	// a slow client. Default 64.
	SyncConcurrency int `yaml:"sync_concurrency"`
	// SyncStreams bounds the backlogs read at once with those that wait: each holds
	// half a megabyte here and twice that in logic if its messages are large.
	// Default 512.
	SyncStreams int `yaml:"sync_streams"`
	// ProofInterval is the most that pings that prove receipt are apart on a
	// connection that is always sent something: what came in less before it broke
	// is sent again. After a pause they begin a tenth of a second apart. Default
	// 1.6 s.
	ProofInterval time.Duration `yaml:"proof_interval"`
	// ReportInterval is how long receipts are collected. Default 300 ms.
	ReportInterval time.Duration `yaml:"report_interval"`
	// WatermarkInterval between comparisons with logic, default 3 s;
	// WatermarkDegraded while the bus is away, default 1 s.
	WatermarkInterval time.Duration `yaml:"watermark_interval"`
	WatermarkDegraded time.Duration `yaml:"watermark_degraded"`
	// WatermarkChunk is how many connections are asked about at once. Default 1,000.
	WatermarkChunk int `yaml:"watermark_chunk"`
	// StallThreshold is the pause of this process after which it trusts nothing
	// it was about to write or has read: its clients may be elsewhere. Default 2 s.
	StallThreshold time.Duration `yaml:"stall_threshold"`

	// Issuer and Audience that access tokens must name. Default: token's.
	Issuer   string `yaml:"issuer"`
	Audience string `yaml:"audience"`
	// KeysInterval between fetches of the public keys, default 30 s;
	// RevocationInterval between looks for revocations, default 500 ms.
	KeysInterval       time.Duration `yaml:"keys_interval"`
	RevocationInterval time.Duration `yaml:"revocation_interval"`

	// DrainWindow is the time over which connections are closed at a stop.
	// Default 5 s.
	DrainWindow time.Duration `yaml:"drain_window"`
}

// DefaultDrainWindow is DrainWindow where none is set.
const DefaultDrainWindow = 5 * time.Second

// The values of MultiDevice.
const (
	multiDisplace = "displace"
	multiAllow    = "allow"
)

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (c Config) withDefaults() Config {
	orDefault(&c.Listen, ":8000")
	orDefault(&c.TimeZone, "Asia/Shanghai")
	orDefault(&c.MultiDevice, multiDisplace)
	orDefault(&c.MaxConnections, 18_000)
	orDefault(&c.FrameRate, 20_000)
	orDefault(&c.FrameBurst, 40_000)
	orDefault(&c.Window, 256)
	orDefault(&c.WindowBytes, 1<<20)
	orDefault(&c.OutboxBytes, 256<<10)
	orDefault(&c.SocketBuffer, 128<<10)
	orDefault(&c.WriteTimeout, 5*time.Second)
	orDefault(&c.PingInterval, 23*time.Second)
	orDefault(&c.PongTimeout, 10*time.Second)
	orDefault(&c.SendFailover, 2*time.Second)
	orDefault(&c.SendTimeout, 5*time.Second)
	orDefault(&c.PendingBytes, 64<<20)
	orDefault(&c.Hold, 100*time.Millisecond)
	orDefault(&c.SyncConcurrency, 64)
	orDefault(&c.SyncStreams, 512)
	orDefault(&c.ProofInterval, 1600*time.Millisecond)
	orDefault(&c.ReportInterval, 300*time.Millisecond)
	orDefault(&c.WatermarkInterval, 3*time.Second)
	orDefault(&c.WatermarkDegraded, time.Second)
	orDefault(&c.WatermarkChunk, 1_000)
	orDefault(&c.StallThreshold, 2*time.Second)
	orDefault(&c.KeysInterval, 30*time.Second)
	orDefault(&c.RevocationInterval, 500*time.Millisecond)
	orDefault(&c.DrainWindow, DefaultDrainWindow)
	return c
}

// Validate reports the first value that cannot work.
func (c Config) Validate() error {
	c = c.withDefaults()
	if _, err := time.LoadLocation(c.TimeZone); err != nil {
		return fmt.Errorf("gateway: time_zone: %w", err)
	}
	if c.MultiDevice != multiDisplace && c.MultiDevice != multiAllow {
		return fmt.Errorf("gateway: multi_device must be %q or %q", multiDisplace, multiAllow)
	}
	for _, o := range c.AllowedOrigins {
		if _, ok := parseOrigin(o); !ok && o != "*" {
			return fmt.Errorf("gateway: allowed_origins: %q is not scheme://host[:port]", o)
		}
	}
	for _, n := range []int{
		c.MaxConnections, c.Window, c.WindowBytes, c.OutboxBytes, c.SocketBuffer, c.PendingBytes,
		c.SyncConcurrency, c.SyncStreams, c.WatermarkChunk,
	} {
		if n <= 0 {
			return errors.New("gateway: limits must be positive")
		}
	}
	for _, d := range []time.Duration{
		c.WriteTimeout, c.PingInterval, c.PongTimeout, c.SendFailover, c.SendTimeout, c.Hold, c.ProofInterval,
		c.ReportInterval, c.WatermarkInterval, c.WatermarkDegraded, c.StallThreshold, c.KeysInterval,
		c.RevocationInterval, c.DrainWindow,
	} {
		if d <= 0 {
			return errors.New("gateway: times must be positive")
		}
	}
	if c.PongTimeout >= c.PingInterval {
		return errors.New("gateway: pong_timeout must be shorter than ping_interval")
	}
	return nil
}
