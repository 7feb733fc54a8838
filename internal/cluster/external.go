package cluster

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"

	"im-services/internal/cluster/infra"
)

// askLimit is for how long a server that was given from outside is asked.
const askLimit = 5 * time.Second

// checkExternal asks every server that was given from outside whether it serves,
// before anything is built. Later nobody would: the services cope with a server
// that is away, and the message that proves a start crosses without most of them.
func (c *Cluster) checkExternal(ctx context.Context) error {
	e := c.opts.External
	asks := map[string]func(context.Context) error{}
	if e.MySQLDSN != "" {
		if _, err := c.DSN(""); err != nil {
			return err
		}
		asks["IM_MYSQL_DSN: "+mysqlAddr(e.MySQLDSN)] = c.askMySQL
	}
	if e.RedisAddr != "" {
		asks["IM_REDIS_ADDR: "+e.RedisAddr] = func(ctx context.Context) error { return askRedis(ctx, e.RedisAddr) }
	}
	if e.NSQD != "" {
		asks["IM_NSQD: "+e.NSQD] = func(ctx context.Context) error { return askNSQD(ctx, e.NSQD) }
	}
	if len(e.Etcd) > 0 {
		asks["IM_ETCD: "+strings.Join(e.Etcd, ",")] = func(ctx context.Context) error { return c.askEtcd(ctx, e.Etcd) }
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askLimit, fmt.Errorf("no answer within %s", askLimit))
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for what, ask := range asks {
		wg.Go(func() {
			err := ask(ctx)
			if err == nil {
				return
			}
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		})
	}
	wg.Wait()
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// mysqlAddr is where a data source name leads, without the password that is in it.
func mysqlAddr(dsn string) string {
	cfg, err := mysql.ParseDSN(strings.TrimSpace(dsn))
	if err != nil {
		return ""
	}
	return cfg.Addr
}

func (c *Cluster) askMySQL(ctx context.Context) error {
	return c.withExternalMySQL(func(db *sql.DB) error { return db.PingContext(ctx) })
}

// prepareExternal makes the databases on a server that was given.
func (c *Cluster) prepareExternal(ctx context.Context) error {
	defer c.busyWith("making the databases at IM_MYSQL_DSN")()
	ctx, cancel := context.WithTimeout(ctx, infraLimit)
	defer cancel()
	return c.withExternalMySQL(func(db *sql.DB) error {
		for _, name := range databases() {
			if _, err := db.ExecContext(ctx, infra.DatabaseSQL(name)); err != nil {
				return fmt.Errorf("IM_MYSQL_DSN: %s: make database %s: %w", mysqlAddr(c.opts.External.MySQLDSN), name, err)
			}
		}
		return nil
	})
}

func (c *Cluster) withExternalMySQL(f func(*sql.DB) error) error {
	dsn, err := c.DSN("")
	if err != nil {
		return err
	}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	return f(db)
}

// What the services find in the environment beside the addresses decides how far a
// server can be asked without speaking for them.
const (
	redisPassword = "IM_CACHE_PASSWORD" //nolint:gosec // a name
	redisTLS      = "IM_CACHE_TLS"
	etcdCA        = "IM_DISCOVERY_TLS_CA"
)

func askRedis(ctx context.Context, addr string) error {
	if os.Getenv(redisTLS) != "" {
		return connects(ctx, addr)
	}
	err := infra.AskRedis(ctx, addr)
	if err != nil && strings.Contains(err.Error(), "NOAUTH") {
		if os.Getenv(redisPassword) != "" {
			return nil
		}
		return fmt.Errorf("it wants a password, set %s: %w", redisPassword, err)
	}
	return err
}

// askEtcd is content with one member that serves: a cluster may have lost one.
func (c *Cluster) askEtcd(ctx context.Context, endpoints []string) error {
	errs := make([]error, len(endpoints))
	var wg sync.WaitGroup
	for i, addr := range endpoints {
		wg.Go(func() {
			if os.Getenv(etcdCA) != "" {
				errs[i] = connects(ctx, strings.TrimPrefix(addr, "https://"))
				return
			}
			errs[i] = infra.GetOK(ctx, "http://"+strings.TrimPrefix(addr, "http://")+"/health")
		})
	}
	wg.Wait()
	served := 0
	for _, err := range errs {
		if err == nil {
			served++
		}
	}
	err := errors.Join(errs...)
	if served > 0 && err != nil {
		c.say("WARNING: IM_ETCD: %d of %d members serve: %v", served, len(endpoints), err)
		return nil
	}
	return err
}

// askNSQD introduces itself as a client; nothing but an nsqd answers that with OK.
func askNSQD(ctx context.Context, addr string) error {
	const hello, ok = "  V2IDENTIFY\n\x00\x00\x00\x02{}", "\x00\x00\x00\x06\x00\x00\x00\x00OK"
	conn, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, hello); err != nil {
		return err
	}
	answer := make([]byte, len(ok))
	if n, err := io.ReadFull(conn, answer); err != nil {
		return fmt.Errorf("it is no nsqd: answered %q: %w", answer[:n], err)
	}
	if string(answer) != ok {
		return fmt.Errorf("it is no nsqd: answered %q", answer)
	}
	return nil
}

func connects(ctx context.Context, addr string) error {
	conn, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// dial connects; what is read and written then ends with ctx, too.
func dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline() // without one it is zero, which is none
	return conn, conn.SetDeadline(deadline)
}
