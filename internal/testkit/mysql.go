package testkit

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"

	"im-services/internal/cluster/infra"
)

// MySQL returns the DSN of an empty database of this test's own, with a strict
// server and one fsync per commit, as in production. It is dropped when the test
// ends. The tests of one process share one server; it is started by the first.
func MySQL(t testing.TB) string {
	t.Helper()
	dsn, err := sharedMySQL()
	if err != nil {
		t.Fatalf("testkit: no database server: %v", err)
	}
	return newDatabase(t, dsn)
}

// MySQLServer is a database server of one test's own.
type MySQLServer struct {
	*Server
	DSN string // of an empty database
}

// StartMySQL starts a database server of the test's own, for tests that hurt it.
func StartMySQL(t testing.TB) *MySQLServer {
	t.Helper()
	program, err := mysqlProgram()
	if err != nil {
		t.Fatalf("testkit: no database server: %v", err)
	}
	var m infra.MySQL
	s, _ := start(t, "mysql", 1, func(dir string, ports []int) (infra.Unit, error) {
		m = describeMySQL(program, dir, ports[0])
		return prepareMySQL(m)
	})
	return &MySQLServer{Server: s, DSN: newDatabase(t, m.DSN(""))}
}

// sharedMySQL starts the server of this process and returns a DSN without a
// database.
var sharedMySQL = sync.OnceValues(func() (string, error) {
	program, err := mysqlProgram()
	if err != nil {
		return "", err
	}
	base, err := processDir()
	if err != nil {
		return "", err
	}
	var last error
	for try := range startTries {
		port, err := infra.FreePort()
		if err != nil {
			return "", err
		}
		m := describeMySQL(program, filepath.Join(base, fmt.Sprintf("mysql%d", try)), port)
		unit, err := prepareMySQL(m)
		if err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		_, last = unit.Start(ctx) // ends with this process
		cancel()
		if last == nil {
			return m.DSN(""), nil
		}
	}
	return "", last
})

func describeMySQL(program infra.Program, dir string, port int) infra.MySQL {
	return infra.MySQL{
		Program: program, Name: "mysql", Dir: dir, LogFile: filepath.Join(dir, "log"), Port: port,
		BufferPoolMB: 64, RedoLogMB: 16, User: "im", Password: "test",
	}
}

// mysqlProgram finds the server, once per process.
var mysqlProgram = sync.OnceValues(func() (infra.Program, error) {
	ctx, cancel := context.WithTimeout(context.Background(), helperLimit)
	defer cancel()
	return infra.FindMySQL(ctx, tell)
})

// prepareMySQL makes a data directory for m and describes the server.
func prepareMySQL(m infra.MySQL) (infra.Unit, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := m.Prepare(ctx); err != nil {
		return infra.Unit{}, err
	}
	return m.Unit()
}

var databases atomic.Int64

// newDatabase makes a database on the server of dsn and drops it after the test.
func newDatabase(t testing.TB, dsn string) string {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.DBName = ""
	db, err := sql.Open("mysql", cfg.FormatDSN())
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("t%d_%d", os.Getpid(), databases.Add(1))
	exec := func(statement string) error {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		_, err := db.ExecContext(ctx, statement)
		return err
	}
	if err := exec("CREATE DATABASE " + name + " CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A test may have killed its server: nothing is left to drop then.
		_ = exec("DROP DATABASE IF EXISTS " + name)
		_ = db.Close()
	})
	cfg.DBName = name
	return cfg.FormatDSN()
}
