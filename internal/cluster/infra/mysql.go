package infra

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "github.com/go-sql-driver/mysql" // readiness is a real login

	"im-services/internal/cluster/process"
)

// Program is an executable and what it needs to run from where it lies.
type Program struct {
	Path   string   // the server
	Prefix []string // arguments it always needs
	Env    []string // environment it always needs
	Init   string   // MariaDB's data directory initialiser; "" for MySQL, which does it itself
	Root   string   // top of the unpacked files it comes from; "" if installed
	Origin string   // where it was found, for people
}

// Version returns the program's answer to --version.
func (p Program) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Path, "--version") //nolint:gosec // a program we found ourselves
	cmd.Env = append(os.Environ(), p.Env...)
	out, err := cmd.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("%s --version: %w: %s", p.Path, err, bytes.TrimSpace(e.Stderr))
	}
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", p.Path, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// MySQL describes a MySQL-protocol server with a private data directory.
type MySQL struct {
	Program Program
	Name    string // of the process
	Dir     string // holds data and the start-up script; made if missing
	LogFile string
	Port    int
	// BufferPoolMB and RedoLogMB size InnoDB.
	BufferPoolMB, RedoLogMB int
	// User and Password of the account that the server is asked to have, with
	// all rights on every database. Root logs in with the same password.
	User, Password string
	// Databases are made if missing, each with an account of the same name and
	// the same password that can reach this database only.
	Databases []string
	// ServerID, if not 0, makes the server one of a pair of primary and replica,
	// with a binary log: see replication.go. No two servers of a pair may ever
	// have had the same. ReadOnly starts it as the replica.
	ServerID uint32
	ReadOnly bool
}

// DataDir is where the server keeps its files.
func (m MySQL) DataDir() string { return filepath.Join(m.Dir, "data") }

// DSN returns the data source name of one database, "" for none, with the
// account that may do everything.
func (m MySQL) DSN(database string) string {
	return fmt.Sprintf("%s:%s@tcp(%s)/%s", m.User, m.Password, Loopback(m.Port), database)
}

// OwnDSN returns the data source name of one of Databases with the account that
// can reach nothing else.
func (m MySQL) OwnDSN(database string) string {
	return fmt.Sprintf("%s:%s@tcp(%s)/%s", database, m.Password, Loopback(m.Port), database)
}

// Prepare makes the data directory unless it exists.
func (m MySQL) Prepare(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(m.DataDir(), "mysql")); err == nil {
		return nil
	}
	template, err := mysqlTemplate(ctx, m.Program)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return err
	}
	// Made under another name first: a copy that was cut short must not look
	// like a data directory.
	tmp := m.DataDir() + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.CopyFS(tmp, os.DirFS(template)); err != nil {
		return err
	}
	return os.Rename(tmp, m.DataDir())
}

// Unit describes the server process; call Prepare first. It writes the start-up
// script that makes the account and the databases.
func (m MySQL) Unit() (Unit, error) {
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return Unit{}, err
	}
	script := filepath.Join(m.Dir, "init.sql")
	if err := os.WriteFile(script, []byte(m.initSQL()), 0o600); err != nil {
		return Unit{}, err
	}
	args := append([]string{"--no-defaults"}, m.Program.Prefix...)
	args = append(args, asRoot()...)
	args = append(args,
		"--datadir="+m.DataDir(),
		"--port="+strconv.Itoa(m.Port),
		"--bind-address=127.0.0.1",
		// Relative to the data directory: an absolute path may exceed the 107
		// bytes a socket's name can have.
		"--socket=mysql.sock",
		"--pid-file=mysql.pid",
		"--init-file="+script,
		"--skip-name-resolve",
		// Never weaker than production: one fsync for each commit.
		"--innodb-flush-log-at-trx-commit=1",
		"--character-set-server=utf8mb4",
		"--collation-server=utf8mb4_general_ci",
		"--sql-mode=STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION",
		"--default-time-zone=+00:00",
		fmt.Sprintf("--innodb-buffer-pool-size=%dM", m.BufferPoolMB),
		fmt.Sprintf("--loose-innodb-log-file-size=%dM", m.RedoLogMB),
		"--loose-innodb-snapshot-isolation=OFF",
		"--max-connections=600",
		"--performance-schema=OFF",
		"--loose-mysqlx=OFF",
	)
	if m.ServerID != 0 {
		args = append(args, m.replicationArgs()...)
	} else {
		args = append(args, "--loose-skip-log-bin")
	}
	return Unit{
		Spec:  process.Spec{Name: m.Name, Path: m.Program.Path, Args: args, Env: m.Program.Env, LogFile: m.LogFile},
		Ready: m.ready,
	}, nil
}

// ready logs in and checks that the start-up script has been through and that
// the server is ours and not somebody else's on the same port.
func (m MySQL) ready(ctx context.Context) error {
	db, err := sql.Open("mysql", m.DSN("")+"?timeout=1s&readTimeout=1s&writeTimeout=1s")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	var dir string
	if err := db.QueryRowContext(ctx, "SELECT @@datadir").Scan(&dir); err != nil {
		return err
	}
	if !sameFile(dir, m.DataDir()) {
		return fmt.Errorf("port %d answers from another data directory, %s", m.Port, dir)
	}
	for _, name := range m.Databases {
		var found string
		if err := db.QueryRowContext(ctx, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?", name).Scan(&found); err != nil {
			return fmt.Errorf("database %s: %w", name, err)
		}
	}
	return nil
}

// dropOpenAccounts removes what initialising a data directory makes beside
// root@localhost: root without a password for 127.0.0.1, ::1 and whatever the
// machine was called then, and accounts without a name. The server is asked which,
// for that name may be another by now.
const dropOpenAccounts = `SET SESSION group_concat_max_len = 65536;
SET @open = (SELECT GROUP_CONCAT(QUOTE(User), '@', QUOTE(Host)) FROM mysql.user WHERE User = '' OR (User = 'root' AND Host <> 'localhost'));
SET @drop = IF(@open IS NULL, 'DO 0', CONCAT('DROP USER IF EXISTS ', @open));
PREPARE drop_open FROM @drop;
EXECUTE drop_open;
DEALLOCATE PREPARE drop_open;
`

// initSQL is run by the server at every start, one statement a line.
func (m MySQL) initSQL() string {
	var b strings.Builder
	if m.ServerID != 0 { // both servers of a pair have their own
		b.WriteString("SET sql_log_bin = 0;\n")
	}
	b.WriteString(dropOpenAccounts)
	account := fmt.Sprintf("'%s'@'127.0.0.1'", m.User)
	fmt.Fprintf(&b, "CREATE USER IF NOT EXISTS %s IDENTIFIED BY '%s';\n", account, m.Password)
	fmt.Fprintf(&b, "ALTER USER %s IDENTIFIED BY '%s';\n", account, m.Password)
	fmt.Fprintf(&b, "GRANT ALL PRIVILEGES ON *.* TO %s WITH GRANT OPTION;\n", account)
	fmt.Fprintf(&b, "ALTER USER 'root'@'localhost' IDENTIFIED BY '%s';\n", m.Password)
	for _, name := range m.Databases {
		b.WriteString(DatabaseSQL(name) + ";\n")
		fmt.Fprintf(&b, "CREATE USER IF NOT EXISTS '%s'@'127.0.0.1' IDENTIFIED BY '%s';\n", name, m.Password)
		fmt.Fprintf(&b, "ALTER USER '%s'@'127.0.0.1' IDENTIFIED BY '%s';\n", name, m.Password)
		fmt.Fprintf(&b, "GRANT ALL PRIVILEGES ON `%s`.* TO '%s'@'127.0.0.1';\n", strings.ReplaceAll(name, "_", `\_`), name)
	}
	return b.String()
}

// DatabaseSQL returns the statement that makes a database unless it exists.
func DatabaseSQL(name string) string {
	return "CREATE DATABASE IF NOT EXISTS `" + name + "` CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
}

// asRoot returns the flag without which the server refuses to run as root.
func asRoot() []string {
	if os.Getuid() == 0 {
		return []string{"--user=root"}
	}
	return nil
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// errNotInstalled means that a search found nothing; the next source is tried.
var errNotInstalled = errors.New("not installed")

// installedMySQL looks for a server on PATH and where distributions put servers,
// and tries it.
func installedMySQL(ctx context.Context) (Program, error) {
	path, ok := lookServer("mariadbd", "mysqld")
	if !ok {
		return Program{}, errNotInstalled
	}
	p := Program{Path: path, Origin: path}
	version, err := p.Version(ctx)
	if err != nil {
		return Program{}, err
	}
	// Debian's mysqld is MariaDB: only the version text tells.
	if strings.Contains(version, "MariaDB") {
		init, ok := lookServer("mariadb-install-db", "mysql_install_db")
		if !ok {
			return Program{}, fmt.Errorf("%s is there but mariadb-install-db is not", path)
		}
		p.Init = init
	}
	// It may run and still be of no use: AppArmor keeps Ubuntu's own from writing
	// anywhere but to /var/lib/mysql.
	_, err = mysqlTemplate(ctx, p)
	return p, err
}

// serverDirs are searched after PATH: ordinary users often lack the sbin folders.
var serverDirs = []string{"/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/bin", "/opt/homebrew/bin", "/opt/homebrew/sbin"}

// lookServer returns the first of the named executables that exists.
func lookServer(names ...string) (string, bool) {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, true
		}
		for _, dir := range serverDirs {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path, true
			}
		}
	}
	return "", false
}
