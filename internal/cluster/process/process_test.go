package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func sleeper(t *testing.T) *Process {
	t.Helper()
	p, err := Start(Spec{Name: "sleep", Path: "/bin/sleep", Args: []string{"60"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func shell(t *testing.T, script, log string) *Process {
	t.Helper()
	p, err := Start(Spec{Name: "sh", Path: "/bin/sh", Args: []string{"-c", script}, LogFile: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestStart_TellsHowTheChildEnded(t *testing.T) {
	log := filepath.Join(t.TempDir(), "logs", "x.log")
	p := shell(t, "echo out; echo err >&2; exit 3", log)
	<-p.Done()
	if p.Err() == nil || !strings.Contains(p.Err().Error(), "exit status 3") {
		t.Errorf("Err = %v, want exit status 3", p.Err())
	}
	if p.Running() {
		t.Error("it still runs")
	}
	text, err := os.ReadFile(log)
	if err != nil || string(text) != "out\nerr\n" {
		t.Errorf("log %q, %v", text, err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signalling an ended child: %v", err)
	}
}

func TestStop_AsksFirstAndKillsWhoDoesNotListen(t *testing.T) {
	log := filepath.Join(t.TempDir(), "x.log")
	polite := shell(t, `trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done`, log)
	waitLog(t, log, "up")
	if err := polite.StopWithin(5 * time.Second); err != nil {
		t.Errorf("a child that listens: %v", err)
	}
	waitLog(t, log, "bye")

	log = filepath.Join(t.TempDir(), "y.log")
	deaf := shell(t, `trap '' TERM; echo up; while :; do sleep 0.01; done`, log)
	waitLog(t, log, "up")
	if err := deaf.StopWithin(100 * time.Millisecond); err == nil {
		t.Error("a child that does not listen ended by itself")
	}
	if deaf.Running() {
		t.Error("it survives")
	}
}

func TestPause_ReturnsWhenNothingMovesAnyMore(t *testing.T) {
	log := filepath.Join(t.TempDir(), "x.log")
	p := shell(t, `while :; do echo tick; done`, log)
	waitLog(t, log, "tick")
	size := func() int64 {
		info, err := os.Stat(log)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	for range 20 {
		if err := p.Pause(); err != nil {
			t.Fatal(err)
		}
		before := size()
		time.Sleep(5 * time.Millisecond)
		if after := size(); after != before {
			t.Fatalf("a paused child wrote %d bytes", after-before)
		}
		if err := p.Resume(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStop_ReachesAPausedChild(t *testing.T) {
	p := sleeper(t)
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := p.StopWithin(5 * time.Second); err != nil {
		t.Error(err)
	}
}

func TestPidFile_NamesTheProcessAndNoStranger(t *testing.T) {
	file := filepath.Join(t.TempDir(), "run", "x.pid")
	if _, alive := ReadPidFile(file); alive {
		t.Error("a missing file names a process")
	}
	p := sleeper(t)
	if err := WritePidFile(file, p.Pid(), p.Started()); err != nil {
		t.Fatal(err)
	}
	if pid, alive := ReadPidFile(file); !alive || pid != p.Pid() {
		t.Errorf("got %d, %v; want %d", pid, alive, p.Pid())
	}
	if err := WritePidFile(file, p.Pid(), p.Started()+1); err != nil {
		t.Fatal(err)
	}
	if _, alive := ReadPidFile(file); alive {
		t.Error("a process with another start time is taken for the recorded one")
	}
	if err := KillPidFile(file, time.Second); err != nil {
		t.Fatal(err)
	}
	if !p.Running() {
		t.Error("a stranger was killed")
	}
	for _, text := range []string{"", "x y", "1 0", "-1 5", "0 0"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if pid, alive := ReadPidFile(file); alive {
			t.Errorf("%q names process %d", text, pid)
		}
	}
}

func TestKillPidFile_EndsTheProcessEvenIfItDoesNotListen(t *testing.T) {
	log := filepath.Join(t.TempDir(), "x.log")
	p := shell(t, `trap '' TERM; echo up; while :; do sleep 0.01; done`, log)
	waitLog(t, log, "up")
	file := filepath.Join(t.TempDir(), "x.pid")
	if err := WritePidFile(file, p.Pid(), p.Started()); err != nil {
		t.Fatal(err)
	}
	if err := KillPidFile(file, 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if _, alive := StartTime(p.Pid()); alive {
		t.Error("it survives")
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Error("the pid file is still there")
	}
}

// Whatever thread of the parent starts a child, and however the parent ends, the
// child goes with it; and not before.
func TestChildren_DieWithTheirParentOnly(t *testing.T) {
	if report := os.Getenv("PROCESS_TEST_REPORT"); report != "" {
		var pids []string
		for range 4 {
			done := make(chan string)
			go func() { done <- strconv.Itoa(sleeper(t).Pid()) }() // on threads that come and go
			pids = append(pids, <-done)
		}
		time.Sleep(300 * time.Millisecond)
		if err := os.WriteFile(report, []byte(strings.Join(pids, " ")), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // until killed
		return
	}
	report := filepath.Join(t.TempDir(), "report")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildren_DieWithTheirParentOnly$")
	cmd.Env = append(os.Environ(), "PROCESS_TEST_REPORT="+report)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitLog(t, report, " ")
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	pids := strings.Fields(string(text))
	for _, pid := range pids {
		if !running(t, pid) {
			t.Errorf("child %s died before its parent", pid)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for _, pid := range pids {
		for end := time.Now().Add(5 * time.Second); running(t, pid); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("child %s survives its parent", pid)
			}
		}
	}
}

func running(t *testing.T, pid string) bool {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	_, alive := StartTime(n)
	return alive
}

func waitLog(t *testing.T, file, want string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if text, _ := os.ReadFile(file); strings.Contains(string(text), want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s never says %q", file, want)
		}
	}
}
