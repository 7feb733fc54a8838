package infra

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"im-services/internal/cluster/process"
)

func TestLock_IsExclusiveAndEndsWithItsHolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "deep", "x.lock")
	unlock, err := Lock(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Lock(ctx, file); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second holder: %v, want it to wait until its deadline", err)
	}
	unlock()
	again, err := Lock(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestUnit_StartSaysWhyAProcessEnded(t *testing.T) {
	log := filepath.Join(t.TempDir(), "x.log")
	u := Unit{
		Spec:  process.Spec{Name: "thing", Path: "/bin/sh", Args: []string{"-c", "echo no config; exit 4"}, LogFile: log},
		Ready: func(context.Context) error { return errors.New("not yet") },
	}
	_, err := u.Start(t.Context())
	if err == nil {
		t.Fatal("it started")
	}
	for _, want := range []string{"thing ended before it was ready", "exit status 4", "no config"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

func TestUnit_StartGivesUpWithItsContextAndLeavesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	u := Unit{
		Spec:  process.Spec{Name: "thing", Path: "/bin/sh", Args: []string{"-c", "echo $$ > " + file + "; exec sleep 60"}},
		Ready: func(context.Context) error { return errors.New("not yet") },
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := u.Start(ctx); err == nil || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("error %v, want the last answer in it", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(text))); err == nil {
		t.Error("the process is still there")
	}
}

// describeMySQL describes a small server of this machine in a new folder.
func describeMySQL(t *testing.T) MySQL {
	t.Helper()
	program, err := FindMySQL(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return MySQL{
		Program: program, Name: "mysql", Dir: dir, LogFile: filepath.Join(dir, "log"), Port: port,
		BufferPoolMB: 32, RedoLogMB: 16, User: "im", Password: "x", Databases: []string{"one_db"},
	}
}

func startMySQL(t *testing.T, m MySQL) *process.Process {
	t.Helper()
	if err := m.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	unit, err := m.Unit()
	if err != nil {
		t.Fatal(err)
	}
	p, err := unit.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestMySQL_ReadyIsNotFooledByAnotherServerOnThePort(t *testing.T) {
	m := describeMySQL(t)
	startMySQL(t, m)
	other := describeMySQL(t)
	other.Port = m.Port
	if err := other.ready(t.Context()); err == nil || !strings.Contains(err.Error(), "another data directory") {
		t.Errorf("asked about another data directory: %v", err)
	}
	m.Databases = []string{"two_db"}
	if err := m.ready(t.Context()); err == nil || !strings.Contains(err.Error(), "two_db") {
		t.Errorf("asked about a database that is not there: %v", err)
	}
}

// What a pair needs is MariaDB's own: another server is named, and not tried.
func TestCheckReplication_NamesAServerThatCannot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mysqld")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho 'mysqld  Ver 8.4.3 for Linux on x86_64 (MySQL Community Server - GPL)'\n"), 0o700); err != nil { //nolint:gosec // a script
		t.Fatal(err)
	}
	if err := CheckReplication(t.Context(), Program{Path: file}); err == nil || !strings.Contains(err.Error(), "8.4.3") {
		t.Errorf("got %v, want an error that names it", err)
	}
	program, err := FindMySQL(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if version, err := program.Version(t.Context()); err == nil && strings.Contains(version, "MariaDB") {
		if err := CheckReplication(t.Context(), program); err != nil {
			t.Error(err)
		}
	}
}

func TestFreePort_IsFreeAndOutsideTheRangeOfOutgoingConnections(t *testing.T) {
	for range 50 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if port < 12000 || port >= 21000 {
			t.Errorf("port %d", port)
		}
		l, err := net.Listen("tcp", Loopback(port))
		if err != nil {
			t.Errorf("port %d is not free: %v", port, err)
			continue
		}
		_ = l.Close()
	}
}

func TestLogTail_IsTheEndAndBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if got := LogTail(file, 3); got != "" {
		t.Errorf("no file: %q", got)
	}
	text := strings.Repeat("early\n", 10_000) + "a\nb\n" + strings.Repeat("x", 1000) + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := LogTail(file, 3)
	if !strings.Contains(got, "\n    a\n    b\n    xxx") || strings.Contains(got, "early") || len(got) > 500 {
		t.Errorf("got %q", got)
	}
}
