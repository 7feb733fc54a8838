package infra

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Two servers of a pair are told from all others by MySQL.ServerID. The replica
// answers the primary once it has received a transaction, and only then is that
// visible to anybody and its COMMIT answered (AFTER_SYNC): nothing that was
// acknowledged is on one disk only. What follows is MariaDB's own dialect.

// ackTimeout is for how long a COMMIT waits for the replica, in milliseconds: a
// year. When it is over, a primary would go on alone without a word, and what it
// then acknowledges would be lost in the next fail-over.
const ackTimeout = 365 * 24 * 60 * 60 * 1000

// beatDatabase holds what is written only to see that it arrives.
const beatDatabase = "replication"

// replicationArgs make the server one of a pair.
func (m MySQL) replicationArgs() []string {
	readOnly := "OFF"
	if m.ReadOnly {
		readOnly = "ON"
	}
	return []string{
		"--server-id=" + strconv.FormatUint(uint64(m.ServerID), 10),
		"--read-only=" + readOnly,
		"--log-bin=binlog",
		"--log-slave-updates=ON", // a replica can be made of a server that was one
		"--sync-binlog=1",
		"--binlog-format=ROW",
		"--gtid-strict-mode=ON", // two histories that differ are an error
		"--relay-log=relay",
		"--skip-slave-start",
		"--slave-parallel-threads=4",
		"--slave-parallel-mode=conservative",
		"--rpl-semi-sync-master-wait-point=AFTER_SYNC",
		"--rpl-semi-sync-master-wait-no-slave=ON",
		fmt.Sprintf("--rpl-semi-sync-master-timeout=%d", ackTimeout),
		"--rpl-semi-sync-slave-enabled=ON",
		"--rpl-semi-sync-slave-kill-conn-timeout=1", // it says good-bye to its primary, which may be dead
	}
}

// CheckReplication says whether a pair can be made of this program.
func CheckReplication(ctx context.Context, p Program) error {
	version, err := p.Version(ctx)
	if err != nil {
		return err
	}
	if !strings.Contains(version, "MariaDB") {
		return fmt.Errorf("a replica needs MariaDB, and this is %s", version)
	}
	return nil
}

// replicationWait is how long the server is asked at a time whether it has
// executed everything.
const replicationWait = 20 * time.Second

// withSession calls f with a session that may do everything.
func (m MySQL) withSession(ctx context.Context, f func(*sql.Conn) error) error {
	db, err := sql.Open("mysql", m.DSN("")+"?timeout=2s&readTimeout=30s&writeTimeout=5s")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	defer func() { _ = conn.Close() }()
	if err := f(conn); err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	return nil
}

// run executes statements one after another in one session.
func (m MySQL) run(ctx context.Context, statements ...string) error {
	return m.withSession(ctx, func(conn *sql.Conn) error {
		for _, s := range statements {
			if _, err := conn.ExecContext(ctx, s); err != nil {
				return fmt.Errorf("%.40s: %w", s, err)
			}
		}
		return nil
	})
}

// CopyFrom fills a new server with the databases of primary, as they stand at one
// moment of its log, and notes that moment as where Follow begins.
func (m MySQL) CopyFrom(ctx context.Context, primary MySQL) error {
	g, ctx := errgroup.WithContext(ctx) // the end of one is the end of the other
	dump, err := primary.client(ctx, "mariadb-dump", "--single-transaction", "--master-data", "--gtid", "--databases", beatDatabase)
	if err != nil {
		return err
	}
	load, err := m.client(ctx, "mariadb", "--init-command=SET sql_log_bin = 0")
	if err != nil {
		return err
	}
	dump.Args = append(dump.Args, m.Databases...)
	r, w := io.Pipe()
	dump.Stdout, load.Stdin = w, r
	g.Go(func() error { return errors.Join(runQuietly(dump), w.Close()) })
	g.Go(func() error { return errors.Join(runQuietly(load), r.Close()) })
	return g.Wait()
}

// runQuietly runs a command; its error says what the command did.
func runQuietly(cmd *exec.Cmd) error {
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, said.Bytes())
	}
	return nil
}

// client is a command of the server's own package, logged in to it.
func (m MySQL) client(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path := filepath.Join(m.Program.Root, "usr/bin", name)
	if m.Program.Root == "" {
		var ok bool
		if path, ok = lookServer(name); !ok {
			return nil, fmt.Errorf("%s is there but %s is not", m.Program.Path, name)
		}
	}
	args = append([]string{"--no-defaults", "--host=127.0.0.1", "--port=" + strconv.Itoa(m.Port), "--user=" + m.User}, args...)
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // a program we found ourselves
	cmd.Env = append(append(os.Environ(), m.Program.Env...), "MYSQL_PWD="+m.Password)
	return cmd, nil
}

// Follow makes the server a replica of primary, which it reaches at addr, from
// where it is itself.
func (m MySQL) Follow(ctx context.Context, primary MySQL, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	return m.run(ctx,
		"SET GLOBAL rpl_semi_sync_master_enabled = OFF",
		"SET GLOBAL gtid_slave_pos = @@GLOBAL.gtid_current_pos",
		fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='%s', MASTER_PORT=%s, MASTER_USER='%s', MASTER_PASSWORD='%s', MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos",
			host, port, primary.User, primary.Password),
		"START SLAVE",
	)
}

// RequireAck makes every COMMIT from now on wait for the replica, and returns once
// the replica has all that was committed before.
func (m MySQL) RequireAck(ctx context.Context, replica MySQL) error {
	if err := m.awaitReplica(ctx); err != nil {
		return err
	}
	// It catches up first: nobody has to wait for that.
	if err := m.drainTo(ctx, replica); err != nil {
		return err
	}
	return m.run(ctx,
		"CREATE DATABASE IF NOT EXISTS "+beatDatabase,
		"CREATE TABLE IF NOT EXISTS "+beatDatabase+".beat (id INT PRIMARY KEY, n BIGINT NOT NULL)",
		"SET GLOBAL rpl_semi_sync_master_enabled = ON",
		// A commit that is under way at this moment does not wait for the replica, or
		// waits for an answer that it was not asked for. Both stand in the log before
		// this one, with whose answer the replica has them, too.
		"INSERT INTO "+beatDatabase+".beat VALUES (1, 1) ON DUPLICATE KEY UPDATE n = n + 1",
	)
}

// awaitReplica returns once a replica is connected that answers.
func (m MySQL) awaitReplica(ctx context.Context) error {
	return m.withSession(ctx, func(conn *sql.Conn) error {
		for {
			var name string
			var clients int
			err := conn.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_clients'").Scan(&name, &clients)
			if err != nil || clients > 0 {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("no replica connects: %w", ctx.Err())
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}

// drainTo returns once replica has executed what the server has committed.
func (m MySQL) drainTo(ctx context.Context, replica MySQL) error {
	var pos string
	err := m.withSession(ctx, func(conn *sql.Conn) error {
		return conn.QueryRowContext(ctx, "SELECT @@GLOBAL.gtid_binlog_pos").Scan(&pos)
	})
	if err != nil {
		return err
	}
	return replica.applied(ctx, pos)
}

// applied returns once the server has executed all up to a GTID position.
func (m MySQL) applied(ctx context.Context, pos string) error {
	return m.withSession(ctx, func(conn *sql.Conn) error {
		for {
			var late int
			if err := conn.QueryRowContext(ctx, "SELECT MASTER_GTID_WAIT(?, ?)", pos, replicationWait.Seconds()).Scan(&late); err != nil {
				return err
			}
			if late == 0 {
				return nil
			}
			status, err := slaveStatus(ctx, conn)
			if why := status["Last_IO_Error"] + status["Last_SQL_Error"]; err != nil || why != "" {
				return errors.Join(fmt.Errorf("not at %s: %s", pos, why), err)
			}
		}
	})
}

// Demote makes the server refuse every write, and ends the sessions of its
// services. The order matters: the first waits for the commits under way, and a
// commit whose session is ended while it waits for the replica is answered without.
func (m MySQL) Demote(ctx context.Context) error {
	statements := []string{"SET lock_wait_timeout = 2", "SET GLOBAL read_only = ON"}
	for _, name := range m.Databases {
		statements = append(statements, fmt.Sprintf("KILL USER '%s'@'127.0.0.1'", name))
	}
	return m.run(ctx, statements...)
}

// Detach ends the replication to the server, once everything is applied that it
// received. old is the primary if that is still there, and refuses writes: then
// all that it committed has to be received first.
func (m MySQL) Detach(ctx context.Context, old *MySQL) error {
	if old != nil {
		if err := old.drainTo(ctx, m); err != nil {
			return err
		}
	}
	var received string
	err := m.withSession(ctx, func(conn *sql.Conn) error {
		if _, err := conn.ExecContext(ctx, "STOP SLAVE IO_THREAD"); err != nil {
			return err
		}
		status, err := slaveStatus(ctx, conn)
		received = status["Gtid_IO_Pos"]
		return err
	})
	if err != nil {
		return err
	}
	if err := m.applied(ctx, received); err != nil {
		return err
	}
	return m.run(ctx, "STOP SLAVE", "RESET SLAVE ALL")
}

// Promote lets the server take writes.
func (m MySQL) Promote(ctx context.Context) error { return m.run(ctx, "SET GLOBAL read_only = OFF") }

// slaveStatus returns what the server says about its replication.
func slaveStatus(ctx context.Context, conn *sql.Conn) (map[string]string, error) {
	rows, err := conn.QueryContext(ctx, "SHOW SLAVE STATUS")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	if !rows.Next() {
		return nil, errors.Join(errors.New("it is no replica"), rows.Err())
	}
	values, ptrs := make([]sql.NullString, len(names)), make([]any, len(names))
	for i := range values {
		ptrs[i] = &values[i]
	}
	if err := rows.Scan(ptrs...); err != nil {
		return nil, err
	}
	out := make(map[string]string, len(names))
	for i, name := range names {
		out[name] = values[i].String
	}
	return out, rows.Err()
}
