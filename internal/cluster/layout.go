package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"im-services/internal/cluster/infra"
)

// The ports of a cluster, counted from its base port b. A number n is a replica,
// 1 to 9:
//
//	b       public, shared by all gateways
//	b+n     gateway n alone
//	b+10+n  auth n, rpc       b+40+n  gateway n, debug listener
//	b+20+n  friend n, rpc     b+50+n  auth n, debug listener
//	b+30+n  logic n, rpc      b+60+n  friend n, debug listener
//	                          b+70+n  logic n, debug listener
//	b+91…   mysql, redis, etcd (clients, peers), nsqd (tcp, http), nsqlookupd (tcp, http), mysql-2
const (
	blockSize   = 100
	maxReplicas = 9
)

// Ports of the infrastructure, as offsets.
const (
	portMySQL = 91 + iota
	portRedis
	portEtcd
	portEtcdPeer
	portNSQD
	portNSQDHTTP
	portLookupd
	portLookupdHTTP
	portMySQL2
)

// service is one kind of service.
type service struct {
	name       string
	rpc, debug int    // offsets of replica 0's ports; rpc 0: none of its own
	database   string // "" if it has none
}

// services in the order of their dependence: the last to start is the first to stop.
var services = []service{
	{name: "auth", rpc: 10, debug: 50, database: "im_auth"},
	{name: "logic", rpc: 30, debug: 70, database: "im_logic"},
	{name: "friend", rpc: 20, debug: 60, database: "im_friend"},
	{name: "gateway", debug: 40},
}

func (o Options) replicas(service string) int {
	switch service {
	case "auth":
		return o.Auths
	case "logic":
		return o.Logics
	case "friend":
		return o.Friends
	default:
		return o.Gateways
	}
}

func databases() []string {
	var names []string
	for _, s := range services {
		if s.database != "" {
			names = append(names, s.database)
		}
	}
	return names
}

// addrs maps names to loopback addresses: a process's own name to where its
// clients reach it, "<name>/debug" to its debug listener, and a few more.
type addrs map[string]string

// layout computes every address of a cluster of o on base, and the ports in use,
// by the name of the process that will listen on it.
func layout(o Options, base int) (addrs, map[int]string) {
	a, ports := addrs{}, map[int]string{}
	add := func(name, process string, offset int) {
		a[name] = infra.Loopback(base + offset)
		ports[base+offset] = process
	}
	add("public", "gateways", 0)
	for _, s := range services {
		for n := 1; n <= o.replicas(s.name); n++ {
			name := s.name + "-" + strconv.Itoa(n)
			add(name, name, s.rpc+n)
			add(name+"/debug", name, s.debug+n)
		}
	}
	if o.External.MySQLDSN == "" {
		add("mysql", "mysql", portMySQL)
		if o.MySQLReplica {
			add("mysql-2", "mysql-2", portMySQL2)
		}
	} else {
		a["mysql/external"] = mysqlAddr(o.External.MySQLDSN)
	}
	if o.External.RedisAddr == "" {
		add("redis", "redis", portRedis)
	} else {
		a["redis"] = o.External.RedisAddr
	}
	if len(o.External.Etcd) == 0 {
		add("etcd", "etcd", portEtcd)
		add("etcd/peer", "etcd", portEtcdPeer)
	} else {
		a["etcd"] = strings.Join(o.External.Etcd, ",")
	}
	if o.External.NSQD == "" {
		add("nsqd", "nsqd", portNSQD)
		add("nsqd/http", "nsqd", portNSQDHTTP)
		add("nsqlookupd", "nsqlookupd", portLookupd)
		add("nsqlookupd/http", "nsqlookupd", portLookupdHTTP)
	} else {
		a["nsqd"] = o.External.NSQD
	}
	return a, ports
}

// freeBlock finds a base port for o and keeps other clusters away from its block
// until release is called. Blocks lie between 21100 and 31900: above the ports of
// single test servers, below the range of outgoing connections.
func freeBlock(o Options) (base int, release func(), err error) {
	cache, err := infra.CacheDir()
	if err != nil {
		return 0, nil, err
	}
	const first, blocks = 21100, 108
	for _, i := range rand.Perm(blocks) { //nolint:gosec // nothing secret in a port
		base := first + i*blockSize
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		release, err := infra.Lock(ctx, filepath.Join(cache, "ports", fmt.Sprintf("%d.lock", base)))
		cancel()
		if err != nil {
			continue
		}
		if _, ports := layout(o, base); len(busyPorts(ports)) == 0 {
			return base, release, nil
		}
		release()
	}
	return 0, nil, errors.New("cluster: no free block of ports")
}
