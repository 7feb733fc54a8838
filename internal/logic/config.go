package logic

import (
	"fmt"
	"time"
)

// Config is logic's own part of the configuration. Zero values mean the defaults.
type Config struct {
	// Lanes is the number of transactions one replica keeps in flight.
	Lanes int `yaml:"lanes"`
	// BatchMax is the largest number of messages in one transaction.
	BatchMax int `yaml:"batch_max"`
	// QueueMax bounds the sends waiting on one lane; beyond it they are refused.
	QueueMax int `yaml:"queue_max"`
	// SendTimeout is how long a send may take before its outcome is refused or unknown.
	SendTimeout time.Duration `yaml:"send_timeout"`
	// ReplayMax is how many of the newest undelivered messages of one
	// conversation are replayed at connect; older ones are history.
	ReplayMax int `yaml:"replay_max"`
	// RecallWindow is how long a sender may take a message back.
	RecallWindow time.Duration `yaml:"recall_window"`
	// MultiDevice is what becomes of an older connection of the same user and
	// platform: "displace" or "allow". The gateways' setting must be the same.
	MultiDevice string `yaml:"multi_device"`
	// GroupMax is the largest number of members of a group.
	GroupMax int `yaml:"group_max"`
	// GroupsMax is the largest number of groups a user may be in, GroupsOwnedMax
	// that of groups a user may own and still create another.
	GroupsMax      int `yaml:"groups_max"`
	GroupsOwnedMax int `yaml:"groups_owned_max"`
	// SessionsMax is the largest number of private sessions in a user's list: a new
	// one takes the place of the one that was quiet longest.
	SessionsMax int `yaml:"sessions_max"`
	// HistoryBeforeJoin lets members read what was said before they joined.
	HistoryBeforeJoin bool `yaml:"history_before_join"`
	// InviteTTL is how long a group invite works.
	InviteTTL time.Duration `yaml:"invite_ttl"`
	// PresenceDebounce is how long a user must stay away to be told offline.
	PresenceDebounce time.Duration `yaml:"presence_debounce"`
}

// The values of MultiDevice.
const (
	multiDisplace = "displace"
	multiAllow    = "allow"
)

// displaces reports whether a new connection takes the place of an older one.
func (c Config) displaces() bool { return c.MultiDevice == multiDisplace }

// withDefaults fills what is unset.
func (c Config) withDefaults() Config {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	dur := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	def(&c.Lanes, 1)
	def(&c.BatchMax, 128)
	def(&c.QueueMax, 4096)
	def(&c.ReplayMax, 10_000)
	def(&c.GroupMax, 2000)
	def(&c.GroupsMax, 2000)
	def(&c.GroupsOwnedMax, 500)
	def(&c.SessionsMax, 2000)
	dur(&c.SendTimeout, 3*time.Second)
	dur(&c.RecallWindow, 2*time.Minute)
	dur(&c.InviteTTL, 7*24*time.Hour)
	dur(&c.PresenceDebounce, 3*time.Second)
	if c.MultiDevice == "" {
		c.MultiDevice = multiDisplace
	}
	return c
}

// Validate reports what cannot work, naming the setting.
func (c Config) Validate() error {
	for _, n := range []struct {
		name string
		v    int
		max  int
	}{
		{"lanes", c.Lanes, 64},
		{"batch_max", c.BatchMax, 1024},
		{"queue_max", c.QueueMax, 1 << 20},
		{"replay_max", c.ReplayMax, 1 << 20},
		{"group_max", c.GroupMax, 100_000},
		{"groups_max", c.GroupsMax, 2000}, // more of the largest do not fit into an answer
		{"groups_owned_max", c.GroupsOwnedMax, 2000},
		{"sessions_max", c.SessionsMax, 2000}, // as groups_max
	} {
		if n.v < 0 || n.v > n.max {
			return fmt.Errorf("logic.%s is %d: it must be between 0 (default) and %d", n.name, n.v, n.max)
		}
	}
	if c.SendTimeout < 0 || c.SendTimeout > 5*time.Second {
		return fmt.Errorf("logic.send_timeout is %v: it must be between 0 (default) and 5s, the time clients wait", c.SendTimeout)
	}
	switch c.MultiDevice {
	case "", multiDisplace, multiAllow:
		return nil
	}
	return fmt.Errorf("logic.multi_device is %q: it must be %q (default) or %q", c.MultiDevice, multiDisplace, multiAllow)
}
