package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"im-services/internal/cluster/infra"
)

// Options say what to run. The zero value runs two of each service on free
// ports.
type Options struct {
	// Root is the repository's top folder; empty: found from the working directory.
	Root string
	// StateDir holds everything the cluster keeps; required. One cluster at a
	// time can use it.
	StateDir string
	// BasePort is the public port. The hundred ports from it on are the
	// cluster's: see layout.go. Zero: a free block is found.
	BasePort int
	// How many of each service; zero: two. At most nine.
	Gateways, Auths, Friends, Logics int
	// Progress receives one line per step, for people; nil: nobody.
	Progress io.Writer
	// BuildFlags are given to go build for the services, such as "-race" or
	// "-tags=failpoint". Binaries of different flags are kept apart.
	BuildFlags []string
	// BinDir, if set, has the service binaries ready; nothing is built.
	BinDir string
	// Env, if set, may change a process's environment before each of its starts.
	// name is the process ("gateway-1"), env what it would get. It must be safe
	// for concurrent use. Tests put a proxy between two processes with it.
	Env func(c *Cluster, name string, env map[string]string)
	// CheapHashes makes passwords cheap to hash, and to guess: for who makes
	// hundreds of accounts and looks at something else.
	CheapHashes bool
	// NoRestart leaves crashed processes down.
	NoRestart bool
	// Balancer forces the built-in balancer where SO_REUSEPORT would do.
	Balancer bool
	// MySQLReplica adds a second database server, mysql-2, which has every
	// transaction before its COMMIT is answered, and can take over: see
	// FailOver. It is for trying that out: the state folder must be new, neither
	// server is started again after a crash, and their binary logs stay on disk.
	MySQLReplica bool
	// Rerouted, if set, is told in a change of roles where the database is reached
	// from then on, while no server takes writes. Whoever stands between the
	// services and the database sends them there, and ends their connections to
	// where it was: who went on to read there would miss what is new.
	Rerouted func(addr string)
	// Replicated, if set, returns where the replica reaches a primary at addr. Tests
	// put a proxy between the two with it.
	Replicated func(addr string) string
	// External servers to use instead of own ones.
	External External
}

// External names servers that run already; empty fields: start our own.
type External struct {
	MySQLDSN  string   // an account that may create databases, without a database name
	RedisAddr string   // host:port
	Etcd      []string // host:port
	NSQD      string   // host:port
}

// ExternalFromEnv reads IM_MYSQL_DSN, IM_REDIS_ADDR, IM_ETCD and IM_NSQD.
func ExternalFromEnv() External {
	e := External{
		MySQLDSN:  os.Getenv("IM_MYSQL_DSN"),
		RedisAddr: os.Getenv("IM_REDIS_ADDR"),
		NSQD:      os.Getenv("IM_NSQD"),
	}
	if list := os.Getenv("IM_ETCD"); list != "" {
		e.Etcd = strings.Split(list, ",")
	}
	return e
}

// MigrateLimit bounds a schema's migration, and with that how long a start may take
// to end when it is cut short: a large table takes long to alter, and half a
// migration is worse.
const MigrateLimit = 30 * time.Minute

// Limits of the other steps of a start and a stop.
const (
	infraLimit   = 60 * time.Second
	serviceLimit = 60 * time.Second

	gatewayStop = 2 * time.Second
	serviceStop = 1200 * time.Millisecond
	infraStop   = 1500 * time.Millisecond
)

func (o Options) withDefaults() (Options, error) {
	if o.StateDir == "" {
		return o, errors.New("cluster: StateDir is required")
	}
	var err error
	if o.StateDir, err = filepath.Abs(o.StateDir); err != nil {
		return o, err
	}
	if o.Root == "" {
		if o.Root, err = infra.Root(); err != nil {
			return o, err
		}
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	for _, n := range []*int{&o.Gateways, &o.Auths, &o.Friends, &o.Logics} {
		if *n == 0 {
			*n = 2
		}
		if *n < 0 || *n > maxReplicas {
			return o, fmt.Errorf("cluster: between 1 and %d of each service", maxReplicas)
		}
	}
	if o.BasePort < 0 || o.BasePort > 65535-blockSize {
		return o, fmt.Errorf("cluster: base port %d", o.BasePort)
	}
	if o.MySQLReplica && o.External.MySQLDSN != "" {
		return o, errors.New("cluster: no replica can be added to an external MySQL server")
	}
	return o, nil
}
