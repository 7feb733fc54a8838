// Package database opens MySQL-protocol databases in the one way this system
// relies on, runs transactions and applies migrations.
//
// Whatever the server's mood, a session is strict, UTC, utf8mb4 and READ
// COMMITTED, and no statement outlives its timeouts. Errors keep the driver's
// error in their chain; callers classify them with IsDuplicate, IsRetryable,
// IsCommitUnknown and IsUnavailable only.
package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"im-services/internal/platform/config"
)

// Config is the yaml section "database". Zero fields take the defaults named.
type Config struct {
	// DSN is user:password@tcp(host:port)/name. Its parameters cannot weaken
	// what this package forces.
	DSN config.Secret `yaml:"dsn"`

	MaxOpen      int           `yaml:"max_open"`      // connections; 32
	MaxIdle      int           `yaml:"max_idle"`      // MaxOpen: a pool that shrinks under load dials in the hot path
	MaxLifetime  time.Duration `yaml:"max_lifetime"`  // 5m, so that a fail-over behind one name is noticed
	MaxIdleTime  time.Duration `yaml:"max_idle_time"` // 2m
	DialTimeout  time.Duration `yaml:"dial_timeout"`  // 2s
	ReadTimeout  time.Duration `yaml:"read_timeout"`  // 3s for one answer of the server
	WriteTimeout time.Duration `yaml:"write_timeout"` // 3s
	LockWait     time.Duration `yaml:"lock_wait"`     // 2s, whole seconds; below ReadTimeout, so that the server gives up first
	// IdleTx is how long a transaction may do nothing before the server rolls it
	// back and ends its session; 1s, whole seconds. Who stands still or is cut off
	// holds everybody else's rows no longer than that, and others do not wait for
	// LockWait in vain. MariaDB only: elsewhere
	// nothing but the end of the process or its connection frees them.
	IdleTx time.Duration `yaml:"idle_tx"`
}

// sqlMode makes the server refuse what it cannot store instead of changing it.
const sqlMode = "STRICT_ALL_TABLES,ONLY_FULL_GROUP_BY,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"

func (c Config) withDefaults() Config {
	setDefault(&c.MaxOpen, 32)
	setDefault(&c.MaxIdle, c.MaxOpen)
	setDefault(&c.MaxLifetime, 5*time.Minute)
	setDefault(&c.MaxIdleTime, 2*time.Minute)
	setDefault(&c.DialTimeout, 2*time.Second)
	setDefault(&c.ReadTimeout, 3*time.Second)
	setDefault(&c.WriteTimeout, 3*time.Second)
	setDefault(&c.LockWait, 2*time.Second)
	setDefault(&c.IdleTx, time.Second)
	return c
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// ForMigration returns a copy for the pool that applies migrations: a change of
// a large table may take minutes to answer.
func (c Config) ForMigration() Config {
	c.MaxOpen, c.MaxIdle = 4, 4
	c.ReadTimeout, c.IdleTx = 30*time.Minute, 30*time.Minute
	return c
}

// Open connects, checks that the server is one this system can trust and
// returns the pool, which is safe for concurrent use. It fails when the server
// cannot be reached before ctx ends or within the dial timeout.
func Open(ctx context.Context, cfg Config) (*sqlx.DB, error) { return open(ctx, cfg, false) }

func open(ctx context.Context, cfg Config, multi bool) (*sqlx.DB, error) {
	cfg = cfg.withDefaults()
	mc, err := driverConfig(cfg)
	if err != nil {
		return nil, err
	}
	mc.MultiStatements = multi
	inner, err := mysql.NewConnector(mc)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	db := sqlx.NewDb(sql.OpenDB(&connector{inner, multi}), "mysql")
	db.SetMaxOpenConns(cfg.MaxOpen)
	db.SetMaxIdleConns(cfg.MaxIdle)
	db.SetConnMaxLifetime(cfg.MaxLifetime)
	db.SetConnMaxIdleTime(cfg.MaxIdleTime)
	if err := checkServer(ctx, db); err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

// Collector exposes the pool's counters; register it once.
func Collector(db *sqlx.DB, name string) prometheus.Collector {
	return collectors.NewDBStatsCollector(db.DB, name)
}

// driverConfig parses the DSN and forces our settings over it.
func driverConfig(cfg Config) (*mysql.Config, error) {
	mc, err := mysql.ParseDSN(cfg.DSN.Reveal())
	if err != nil {
		// The driver's text may quote the DSN, which holds the password.
		return nil, errors.New("database: the dsn cannot be parsed: want user:password@tcp(host:port)/name")
	}
	if mc.DBName == "" {
		return nil, errors.New("database: the dsn names no database")
	}
	if mc.Passwd == "" && mc.Net == "tcp" && !onThisMachine(mc.Addr) {
		return nil, errors.New("database: the dsn has no password, which will do for a server on this machine only")
	}
	mc.ParseTime = true
	mc.Loc = time.UTC
	mc.InterpolateParams = true // one round trip instead of three
	mc.ClientFoundRows = true   // "rows affected" means rows matched
	mc.MultiStatements = false
	mc.AllowAllFiles = false
	mc.AllowCleartextPasswords = false
	mc.RejectReadOnly = true // after a fail-over, leave the demoted primary
	mc.CheckConnLiveness = true
	mc.Timeout = cfg.DialTimeout
	mc.ReadTimeout = cfg.ReadTimeout
	mc.WriteTimeout = cfg.WriteTimeout
	mc.Collation = ""
	if err := mc.Apply(mysql.Charset("utf8mb4", "utf8mb4_general_ci")); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	mc.Logger = driverLog{}
	if mc.Params == nil {
		mc.Params = map[string]string{}
	}
	for _, k := range []string{"tx_isolation", "transaction_isolation", "autocommit", "idle_transaction_timeout"} {
		delete(mc.Params, k)
	}
	// Only MariaDB reads what is in the comment, from 10.3 on.
	mc.Params["sql_mode"] = "'" + sqlMode + "' /*M!100300 , idle_transaction_timeout = " + seconds(cfg.IdleTx) + " */"
	mc.Params["time_zone"] = "'+00:00'"
	mc.Params["innodb_lock_wait_timeout"] = seconds(cfg.LockWait)
	return mc, nil
}

// seconds is a duration as the server takes it.
func seconds(d time.Duration) string { return strconv.Itoa(max(1, int(d/time.Second))) }

// Passwordless reports whether the DSN names an account without a password, as
// the shipped one does.
func (c Config) Passwordless() bool {
	mc, err := mysql.ParseDSN(c.DSN.Reveal())
	return err == nil && mc.Passwd == ""
}

// onThisMachine reports whether nobody elsewhere can listen at a TCP address.
func onThisMachine(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// connector makes every new session READ COMMITTED. Neither the name of the
// variable (tx_isolation, transaction_isolation) nor a level per transaction
// will do: the first differs between servers, the second costs a round trip
// each time.
type connector struct {
	driver.Connector
	manual bool // its sessions commit only when they are told to
}

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	ex, ok := conn.(driver.ExecerContext)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("database: the driver cannot execute without a statement")
	}
	if _, err := ex.ExecContext(ctx, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", nil); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if c.manual {
		if _, err := ex.ExecContext(ctx, "SET SESSION autocommit = 0", nil); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// checkServer pings and refuses engines that were measured to lose updates:
// SELECT ... FOR UPDATE does not block in them.
func checkServer(ctx context.Context, db *sqlx.DB) error {
	var version, comment string
	if err := db.QueryRowContext(ctx, "SELECT VERSION(), @@version_comment").Scan(&version, &comment); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	id := strings.ToLower(version + " " + comment)
	for _, bad := range []string{"dolt", "go-mysql-server"} {
		if strings.Contains(id, bad) {
			return fmt.Errorf("database: %s (%s): row locks of this engine do not block; use MySQL, MariaDB or TiDB", version, comment)
		}
	}
	return nil
}

// driverLog sends the driver's own messages (broken connections) to slog.
type driverLog struct{}

func (driverLog) Print(v ...any) {
	slog.Debug("mysql driver", "msg", strings.TrimSpace(fmt.Sprint(v...)))
}
