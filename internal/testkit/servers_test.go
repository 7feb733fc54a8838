package testkit_test

import (
	"context"
	"database/sql"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"im-services/internal/cluster/process"
	"im-services/internal/testkit"
)

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestMySQL_IsAsStrictAndDurableAsProduction(t *testing.T) {
	db := open(t, testkit.MySQL(t))
	for variable, want := range map[string]string{
		"innodb_flush_log_at_trx_commit": "1",
		"character_set_server":           "utf8mb4",
		"log_bin":                        "0",
		"bind_address":                   "127.0.0.1",
	} {
		var got string
		if err := db.QueryRowContext(t.Context(), "SELECT @@GLOBAL."+variable).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s = %q, want %q", variable, got, want)
		}
	}
	var mode string
	if err := db.QueryRowContext(t.Context(), "SELECT @@GLOBAL.sql_mode").Scan(&mode); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(mode, "STRICT_TRANS_TABLES") {
		t.Errorf("sql_mode = %q, want it strict", mode)
	}
}

func TestMySQL_EachCallIsAnEmptyDatabaseThatVanishes(t *testing.T) {
	var first string
	t.Run("first", func(t *testing.T) {
		first = testkit.MySQL(t)
		if _, err := open(t, first).ExecContext(t.Context(), "CREATE TABLE x (id INT)"); err != nil {
			t.Fatal(err)
		}
	})
	second := open(t, testkit.MySQL(t))
	var tables int
	if err := second.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()").Scan(&tables); err != nil {
		t.Fatal(err)
	}
	if tables != 0 {
		t.Errorf("a fresh database has %d tables", tables)
	}
	if err := open(t, first).PingContext(t.Context()); err == nil {
		t.Error("the first test's database is still there")
	}
}

func TestStartMySQL_CommittedRowsSurviveAKill(t *testing.T) {
	s := testkit.StartMySQL(t)
	db := open(t, s.DSN)
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE x (id INT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if _, err := db.ExecContext(t.Context(), "INSERT INTO x VALUES (?)", i); err != nil {
			t.Fatal(err)
		}
	}
	s.Kill()
	if err := db.PingContext(t.Context()); err == nil {
		t.Fatal("the killed server answers")
	}
	s.Restart()
	var rows int
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM x").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if rows != 20 {
		t.Errorf("%d rows after the restart, want 20", rows)
	}
}

func TestRedis_EachCallIsItsOwnServer(t *testing.T) {
	a := redis.NewClient(&redis.Options{Addr: testkit.Redis(t)})
	b := redis.NewClient(&redis.Options{Addr: testkit.Redis(t)})
	defer func() { _, _ = a.Close(), b.Close() }()
	if err := a.Set(t.Context(), "k", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n := b.Exists(t.Context(), "k").Val(); n != 0 {
		t.Error("two calls share keys")
	}
}

func TestServer_PauseAndResume(t *testing.T) {
	s := testkit.StartRedis(t)
	c := redis.NewClient(&redis.Options{Addr: s.Addr, ReadTimeout: 200 * time.Millisecond, MaxRetries: -1, ContextTimeoutEnabled: true})
	defer func() { _ = c.Close() }()
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	if err := c.Ping(t.Context()).Err(); err == nil {
		t.Error("a paused server answers")
	}
	s.Resume()
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Errorf("a resumed server does not answer: %v", err)
	}
}

func TestNSQ_PublishesOverHTTP(t *testing.T) {
	nsq := testkit.NSQ(t)
	resp, err := http.Post("http://"+nsq.HTTP+"/pub?topic=x", "", strings.NewReader("hello")) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	if string(body) != "OK" {
		t.Errorf("answer %q", body)
	}
}

func TestEtcd_GrantsALeaseOfOneSecondAndKeepsKeysOverARestart(t *testing.T) {
	s := testkit.StartEtcd(t)
	c, err := clientv3.New(clientv3.Config{Endpoints: s.Endpoints, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	lease, err := c.Grant(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if lease.TTL != 1 {
		t.Errorf("asked for a lease of 1 s, got %d s", lease.TTL)
	}
	if _, err := c.Put(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	s.Restart()
	got, err := c.Get(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) != 1 {
		t.Errorf("%d keys after the restart, want 1", len(got.Kvs))
	}
}

// A test process that is killed takes its servers with it and leaves no folder.
func TestServers_DieWithTheTestProcess(t *testing.T) {
	if os.Getenv("IM_TESTKIT_VICTIM") != "" {
		redisServer, mysqlDSN := testkit.StartRedis(t), testkit.MySQL(t)
		var dir string
		if err := open(t, mysqlDSN).QueryRowContext(t.Context(), "SELECT @@datadir").Scan(&dir); err != nil {
			t.Fatal(err)
		}
		report := strconv.Itoa(redisServer.Pid()) + " " + dir
		if err := os.WriteFile(os.Getenv("IM_TESTKIT_VICTIM"), []byte(report), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // until killed
		return
	}
	report := filepath.Join(t.TempDir(), "report")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestServers_DieWithTheTestProcess$") //nolint:gosec // this test
	cmd.Env = append(os.Environ(), "IM_TESTKIT_VICTIM="+report)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	eventually(t, 30*time.Second, "the victim is up", func() bool {
		text, _ := os.ReadFile(report)
		pidText, rest, ok := strings.Cut(string(text), " ")
		pid, _ = strconv.Atoi(pidText)
		dir = rest
		return ok
	})
	if _, alive := process.StartTime(pid); !alive {
		t.Fatal("the victim's server does not run")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, 5*time.Second, "its server is gone", func() bool {
		_, alive := process.StartTime(pid)
		return !alive
	})
	eventually(t, 5*time.Second, "its folder is gone", func() bool {
		_, err := os.Stat(dir)
		return os.IsNotExist(err)
	})
}

func eventually(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func TestLeakOptions_ExcuseTheServersOnly(t *testing.T) {
	t.Run("servers", func(t *testing.T) {
		testkit.MySQL(t)
		testkit.Redis(t)
		testkit.Etcd(t)
	})
	if err := goleak.Find(append(testkit.LeakOptions(), goleak.IgnoreAnyFunction("testing.(*T).Run"), goleak.IgnoreAnyFunction("testing.runTests"))...); err != nil {
		t.Error(err)
	}
}
