package infra

import (
	"database/sql"
	"errors"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// The account that initialising leaves open may have any host's name, and a folder
// of an earlier version has them still: the next start mends it.
func TestMySQL_NobodyLogsInWithoutAPassword(t *testing.T) {
	m := describeMySQL(t)
	p := startMySQL(t, m)
	refused := func(when string) {
		t.Helper()
		for _, user := range []string{"root", "", "stranger"} {
			open := m
			open.User, open.Password = user, ""
			db, err := sql.Open("mysql", open.DSN(""))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			var denied *mysql.MySQLError
			if err := db.PingContext(t.Context()); !errors.As(err, &denied) {
				t.Errorf("%s, %q without a password gets %v, want it denied", when, user, err)
			}
		}
	}
	refused("at the first start")
	err := m.run(t.Context(),
		"CREATE USER root@'127.0.0.1', root@'a-former-name', ''@'%', root@'it''s'",
		"GRANT ALL PRIVILEGES ON *.* TO root@'127.0.0.1'",
	)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	startMySQL(t, m)
	refused("at the next start")
	err = m.withSession(t.Context(), func(conn *sql.Conn) error {
		var open int
		err := conn.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM mysql.user WHERE User = '' OR (User = 'root' AND Host <> 'localhost')").Scan(&open)
		if open > 0 {
			t.Errorf("%d open accounts are left", open)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
