package friend

import (
	"errors"
	"time"
)

// Config is the service's own section of the configuration. Zero values mean
// the defaults.
type Config struct {
	// RequestsPerDay is how many friend requests a user may send in any 24 hours.
	// The default lets the maker of a group of the largest size ask everybody.
	RequestsPerDay int `yaml:"requests_per_day"`
	// MaxFriends is how many friends a user may have. Accepts that race each
	// other may pass it by the number of racers.
	MaxFriends int `yaml:"max_friends"`
	// ListLimit is how many friend requests, the newest ones, a user gets listed:
	// so many that he made, that he got, and of these that wait for his answer.
	ListLimit int `yaml:"list_limit"`
	// LogicTimeout bounds one call that opens or closes a conversation.
	LogicTimeout time.Duration `yaml:"logic_timeout"`
	// NotifyTimeout bounds telling somebody of a request or an answer.
	NotifyTimeout time.Duration `yaml:"notify_timeout"`
	// ReconcileInterval is the mean pause between two looks for changes that
	// logic has not confirmed.
	ReconcileInterval time.Duration `yaml:"reconcile_interval"`
	// ClaimFor is how long a replica has a pending change for itself.
	ClaimFor time.Duration `yaml:"claim_for"`
	// IDBlock is how many ids are fetched from logic at once.
	IDBlock int `yaml:"id_block"`
}

func (c Config) withDefaults() Config {
	def(&c.RequestsPerDay, 3000)
	def(&c.MaxFriends, 5000)
	def(&c.ListLimit, 500)
	def(&c.LogicTimeout, 1500*time.Millisecond)
	def(&c.NotifyTimeout, 500*time.Millisecond)
	def(&c.ReconcileInterval, time.Second)
	def(&c.ClaimFor, 3*time.Second)
	def(&c.IDBlock, 1000)
	return c
}

func def[T ~int | ~int64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// LogicPatience is how long a replica of logic may be silent within LogicTimeout
// before another is asked.
func (c Config) LogicPatience() time.Duration { return c.withDefaults().LogicTimeout / 2 }

// Validate reports every value that cannot work.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(cond bool, text string) {
		if cond {
			errs = append(errs, errors.New("friend: "+text))
		}
	}
	bad(c.RequestsPerDay < 0, "requests_per_day must not be negative")
	bad(c.MaxFriends < 0, "max_friends must not be negative")
	bad(c.ListLimit < 0 || c.ListLimit > 5000, "list_limit must be 1..5000")
	bad(c.LogicTimeout < 0, "logic_timeout must not be negative")
	bad(c.NotifyTimeout < 0, "notify_timeout must not be negative")
	bad(c.ReconcileInterval < 0, "reconcile_interval must not be negative")
	bad(c.ClaimFor <= c.LogicTimeout, "claim_for must be longer than logic_timeout, or two replicas do the same work")
	bad(c.IDBlock < 8 || c.IDBlock > 100_000, "id_block must be 8..100000")
	return errors.Join(errs...)
}
