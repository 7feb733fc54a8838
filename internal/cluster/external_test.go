package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A migration that is cut short leaves a schema that no later one can tell: neither
// the end of the start nor a Ctrl-C in the terminal reaches it.
func TestMigrate_IsLetEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "progress")
	state := State(t.TempDir())
	if err := os.MkdirAll(filepath.Dir(state.LogFile("x")), 0o700); err != nil {
		t.Fatal(err)
	}
	m := migration{Service: "logic", Path: filepath.Join(standIns(t), "logic"), Args: []string{"-migrate"}, Env: []string{"STANDIN_MIGRATE_SLOWLY=" + file}}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- state.migrate(ctx, m) }()
	said := func() string {
		text, _ := os.ReadFile(file)
		return string(text)
	}
	for !strings.HasSuffix(said(), "begun") {
		time.Sleep(5 * time.Millisecond)
	}
	if strings.HasPrefix(said(), fmt.Sprint(syscall.Getpgrp(), " ")) {
		t.Error("it is in our process group, and a Ctrl-C would end it")
	}
	cancel()
	if err := <-end; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if said() != "done" {
		t.Errorf("it was cut short at %q", said())
	}
	if err := state.migrate(ctx, m); err == nil {
		t.Error("one begins after the end")
	}
}

// silent returns the address of a server that takes connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func TestStart_ExternalServersAreAskedFirst(t *testing.T) {
	c := start(t, testOptions(t))
	dsn, err := c.DSN("")
	if err != nil {
		t.Fatal(err)
	}
	good := External{MySQLDSN: dsn, RedisAddr: c.Addr("redis"), Etcd: []string{c.Addr("etcd")}, NSQD: c.Addr("nsqd")}
	check := func(e External) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		other := &Cluster{opts: Options{External: e, Progress: t.Output()}}
		return other.checkExternal(ctx)
	}
	if err := check(good); err != nil {
		t.Errorf("servers that serve: %v", err)
	}
	one := good
	one.Etcd = []string{"127.0.0.1:1", c.Addr("etcd")}
	if err := check(one); err != nil {
		t.Errorf("one member of etcd serves: %v", err)
	}
	for name, addr := range map[string]string{"nobody": "127.0.0.1:1", "somebody else": c.Addr("nsqd/http"), "silence": silent(t)} {
		err := check(External{MySQLDSN: "x:secret@tcp(" + addr + ")/", RedisAddr: addr, Etcd: []string{strings.TrimPrefix(addr, "http://")}, NSQD: addr})
		if err == nil {
			t.Errorf("%s: all is well", name)
			continue
		}
		for _, want := range []string{"IM_MYSQL_DSN: ", "IM_REDIS_ADDR: ", "IM_ETCD: ", "IM_NSQD: "} {
			if !strings.Contains(err.Error(), want+addr) {
				t.Errorf("%s: the error does not name %s%s:\n%v", name, want, addr, err)
			}
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}

	// The start itself: nothing runs when it is refused.
	opts := testOptions(t)
	opts.External.RedisAddr = "127.0.0.1:1"
	begin := time.Now()
	if _, err := Start(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "IM_REDIS_ADDR: 127.0.0.1:1") {
		t.Errorf("a start without its Redis: %v", err)
	}
	if took := time.Since(begin); took > askLimit {
		t.Errorf("it took %s", took)
	}
}
