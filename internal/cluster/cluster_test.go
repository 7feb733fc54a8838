package cluster

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"im-services/internal/cluster/infra"
	"im-services/internal/cluster/process"
)

// standIns makes a folder of stand-in services.
func standIns(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, s := range services {
		if err := os.Symlink(self, filepath.Join(dir, s.name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func testOptions(t *testing.T) Options {
	t.Helper()
	t.Setenv("GORACE", "atexit_sleep_ms=0") // the stand-ins may be built with -race
	return Options{StateDir: t.TempDir(), BinDir: standIns(t), Progress: t.Output()}
}

func start(t *testing.T, opts Options) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c, err := Start(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

func TestStart_RunsTwoOfEachAndStopLeavesNothing(t *testing.T) {
	opts := testOptions(t)
	c := start(t, opts)
	want := "mysql redis etcd nsqlookupd nsqd auth-1 auth-2 logic-1 logic-2 friend-1 friend-2 gateway-1 gateway-2"
	var names []string
	var pids []int
	for _, p := range c.Processes() {
		names = append(names, p.Name())
		pids = append(pids, p.Pid())
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("processes %s\nwant      %s", got, want)
	}
	info, err := State(opts.StateDir).Info()
	if err != nil || !info.Ready {
		t.Errorf("recorded %+v, %v; want it ready", info, err)
	}
	for _, name := range names {
		if err := Ask(t.Context(), info, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	begin := time.Now()
	c.Stop()
	if took := time.Since(begin); took > 10*time.Second { // five on a machine that does nothing else
		t.Errorf("stop took %s", took)
	}
	for i, pid := range pids {
		if _, alive := process.StartTime(pid); alive {
			t.Errorf("%s survives the stop", names[i])
		}
	}
	if left, _ := filepath.Glob(State(opts.StateDir).PidFile("*")); len(left) > 0 {
		t.Errorf("pid files left behind: %v", left)
	}
}

func TestStart_DataAndSecretsSurviveTheNextStart(t *testing.T) {
	opts := testOptions(t)
	c := start(t, opts)
	execute(t, c, "CREATE TABLE im_auth.x (id INT)")
	execute(t, c, "INSERT INTO im_auth.x VALUES (7)")
	first, err := c.serviceEnv(services[1], "logic-1")
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()

	c = start(t, opts)
	execute(t, c, "INSERT INTO im_auth.x SELECT id+1 FROM im_auth.x WHERE id = 7")
	var rows int
	if err := adminDB(t, c).QueryRowContext(t.Context(), "SELECT COUNT(*) FROM im_auth.x").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if rows != 2 {
		t.Errorf("%d rows, want 2", rows)
	}
	second, err := c.serviceEnv(services[1], "logic-1")
	if err != nil {
		t.Fatal(err)
	}
	if first["IM_PUSH_KEY"] != second["IM_PUSH_KEY"] || len(first["IM_PUSH_KEY"]) < 32 {
		t.Error("the push key is not kept")
	}
	if friend, err := c.serviceEnv(services[2], "friend-1"); err != nil || friend["IM_PUSH_KEY"] != "" {
		t.Errorf("friend is given the push key, or nothing: %v", err)
	}
}

func TestDatabase_IsAsDurableAsProductionAndAccountsSeeTheirOwnOnly(t *testing.T) {
	c := start(t, testOptions(t))
	for variable, want := range map[string]string{
		"innodb_flush_log_at_trx_commit": "1", "innodb_buffer_pool_size": "268435456", "innodb_doublewrite": "1", "innodb_snapshot_isolation": "0",
	} {
		var got string
		err := adminDB(t, c).QueryRowContext(t.Context(), "SELECT @@GLOBAL."+variable).Scan(&got)
		if err != nil && variable == "innodb_snapshot_isolation" {
			continue // older servers do not have it
		}
		if err != nil || got != want {
			t.Errorf("%s = %q, %v; want %q", variable, got, err, want)
		}
	}
	dsn, err := c.serviceDSN("im_friend")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE own (id INT)"); err != nil {
		t.Errorf("a service cannot use its own database: %v", err)
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE im_auth.other (id INT)"); err == nil {
		t.Error("friend can write to auth's database")
	}
}

func TestKill_IsRepairedWithinTwoSeconds(t *testing.T) {
	c := start(t, testOptions(t))
	for _, name := range []string{"gateway-1", "logic-2", "mysql", "redis", "etcd", "nsqd"} {
		p := c.Process(name)
		old := p.Pid()
		p.Kill()
		begin := time.Now()
		for p.Pid() == old {
			if time.Since(begin) > 2*time.Second+3*time.Second { // what a busy machine may add
				t.Fatalf("%s is not started again", name)
			}
			time.Sleep(5 * time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := p.WaitReady(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		if p.Restarts() != 1 {
			t.Errorf("%s: %d restarts counted, want 1", name, p.Restarts())
		}
		if pid, alive := process.ReadPidFile(c.state.PidFile(name)); !alive || pid != p.Pid() {
			t.Errorf("%s: the pid file says %d (alive %v), want %d", name, pid, alive, p.Pid())
		}
	}
}

func TestProcess_HaltStaysDownPauseIsSilentRestartIsAnotherProcess(t *testing.T) {
	c := start(t, testOptions(t))
	info, err := c.state.Info()
	if err != nil {
		t.Fatal(err)
	}
	p := c.Process("logic-1")
	p.Halt()
	time.Sleep(2*minBackoff + 100*time.Millisecond)
	if p.Running() {
		t.Error("a halted process runs again")
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	if err := Ask(ctx, info, "logic-1"); err == nil {
		t.Error("a paused process answers")
	}
	cancel()
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := Ask(t.Context(), info, "logic-1"); err != nil {
		t.Errorf("a resumed process does not answer: %v", err)
	}
	old := p.Pid()
	if err := p.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.Pid() == old {
		t.Error("restart left the old process")
	}
	if p.Restarts() != 0 {
		t.Error("an ordered restart counts as a crash")
	}
}

func TestStart_TwoClustersSideBySide(t *testing.T) {
	a := start(t, testOptions(t))
	b := start(t, testOptions(t))
	if a.PublicURL() == b.PublicURL() {
		t.Error("two clusters share a port")
	}
	a.Stop()
	if err := Ask(t.Context(), mustInfo(t, b), "gateway-1"); err != nil {
		t.Errorf("stopping one cluster hurt the other: %v", err)
	}
}

func TestStart_RefusesAStateFolderInUse(t *testing.T) {
	opts := testOptions(t)
	c := start(t, opts)
	if _, err := Start(t.Context(), opts); !errors.Is(err, ErrRunning) {
		t.Errorf("a second start says %v, want ErrRunning", err)
	}
	if err := Ask(t.Context(), mustInfo(t, c), "mysql"); err != nil {
		t.Errorf("the refused start hurt the running cluster: %v", err)
	}
	if err := State(opts.StateDir).Remove(); !errors.Is(err, ErrRunning) {
		t.Errorf("deleting a running cluster says %v, want ErrRunning", err)
	}
}

func TestSweep_WaitsForAnOwnerThatIsGoing(t *testing.T) {
	state := State(t.TempDir())
	release, err := state.lock(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.lock(time.Millisecond); !errors.Is(err, ErrRunning) {
		t.Fatalf("a second owner gets %v, want ErrRunning", err)
	}
	time.AfterFunc(300*time.Millisecond, release)
	if _, err := state.Sweep(); err != nil {
		t.Fatal(err)
	}
}

func TestStart_NamesTheHolderOfAPort(t *testing.T) {
	opts := testOptions(t)
	base, release, err := freeBlock(Options{Gateways: 2, Auths: 2, Friends: 2, Logics: 2})
	if err != nil {
		t.Fatal(err)
	}
	release()
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(base+portRedis)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	opts.BasePort = base
	_, err = Start(t.Context(), opts)
	if err == nil {
		t.Fatal("it starts on a taken port")
	}
	for _, want := range []string{strconv.Itoa(base + portRedis), "needed by redis", "process " + strconv.Itoa(os.Getpid()), "Way out"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}

func TestStart_EndsWhatADeadRunLeftBehindAndNoStranger(t *testing.T) {
	opts := testOptions(t)
	state := State(opts.StateDir)
	left, err := process.Start(process.Spec{Name: "sleep", Path: "/bin/sleep", Args: []string{"60"}})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := process.Start(process.Spec{Name: "sleep", Path: "/bin/sleep", Args: []string{"60"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stranger.Kill)
	if err := process.WritePidFile(state.PidFile("logic-1"), left.Pid(), left.Started()); err != nil {
		t.Fatal(err)
	}
	// The same id with another start time: the id was used again.
	if err := process.WritePidFile(state.PidFile("logic-2"), stranger.Pid(), stranger.Started()+1); err != nil {
		t.Fatal(err)
	}
	start(t, opts)
	if left.Running() {
		t.Error("the process of the dead run is still there")
	}
	if !stranger.Running() {
		t.Error("a stranger was killed")
	}
}

func TestStart_AFailureSaysWhyAndLeavesNothing(t *testing.T) {
	for variable, want := range map[string]string{
		"STANDIN_DIES":          "cannot start: reasons",
		"STANDIN_MIGRATE_FAILS": "no such table",
	} {
		t.Run(variable, func(t *testing.T) {
			opts := testOptions(t)
			opts.Env = func(_ *Cluster, _ string, env map[string]string) { env[variable] = "logic" }
			_, err := Start(t.Context(), opts)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "logic") {
				t.Errorf("error %v, want it to say %q of logic", err, want)
			}
			if swept, err := State(opts.StateDir).Sweep(); err != nil || len(swept) > 0 {
				t.Errorf("left behind %v, %v", swept, err)
			}
		})
	}
}

func TestStart_CutShortWhileItMigratesLetsThatEndAndSaysSo(t *testing.T) {
	opts := testOptions(t)
	file := filepath.Join(t.TempDir(), "progress")
	opts.Env = func(_ *Cluster, _ string, env map[string]string) { env["STANDIN_MIGRATE_SLOWLY"] = file }
	var out shared
	opts.Progress = &out
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	end := make(chan error, 1)
	go func() {
		_, err := Start(ctx, opts)
		end <- err
	}()
	for said := ""; !strings.HasSuffix(said, "begun"); time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(file)
		said = string(text)
		select {
		case err := <-end:
			t.Fatal(err)
		default:
		}
	}
	cancel()
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Errorf("the start ends with %v", err)
	}
	if text, err := os.ReadFile(file); string(text) != "done" {
		t.Errorf("the migration was cut short at %q, %v", text, err)
	}
	if !strings.Contains(out.String(), "half a migration is worse") {
		t.Errorf("nobody is told what is waited for:\n%s", out.String())
	}
}

func TestBalancer_SpreadsOverTheGatewaysThatLive(t *testing.T) {
	opts := testOptions(t)
	opts.Balancer = true
	c := start(t, opts)
	seen := map[string]int{}
	for range 10 {
		seen[who(t, c)]++
	}
	if len(seen) != 2 {
		t.Errorf("10 connections went to %v, want both gateways", seen)
	}
	c.Process("gateway-1").Halt()
	for range 5 {
		if got := who(t, c); got != c.Addr("gateway-2/debug") {
			t.Errorf("answer from %s, want the living gateway", got)
		}
	}
}

// shared is a writer that may be read at any time.
type shared struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func TestSignsOfLife_SpeakAfterASilenceOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out shared
		c := &Cluster{opts: Options{Progress: &out}, started: time.Now(), lastSaid: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { c.signsOfLife(ctx) })
		built, fetched := c.busyWith("building"), c.busyWith("fetching")
		time.Sleep(silence - 2*time.Second)
		c.say("something")
		time.Sleep(silence - 2*time.Second)
		if strings.Contains(out.String(), "still") {
			t.Errorf("spoke too soon: %s", out.String())
		}
		time.Sleep(4 * time.Second)
		built()
		time.Sleep(silence)
		fetched()
		time.Sleep(time.Minute)
		cancel()
		wg.Wait()
		if got := strings.Count(out.String(), "still building, fetching\n"); got != 1 {
			t.Errorf("%d lines of both steps, want 1:\n%s", got, out.String())
		}
		if got := strings.Count(out.String(), "still fetching\n"); got != 1 {
			t.Errorf("%d lines of one step, want 1:\n%s", got, out.String())
		}
	})
}

func TestEnv_IsAskedBeforeEachStart(t *testing.T) {
	opts := testOptions(t)
	var mu sync.Mutex
	asked := map[string]int{}
	opts.Env = func(_ *Cluster, name string, _ map[string]string) {
		mu.Lock()
		defer mu.Unlock()
		asked[name]++
	}
	c := start(t, opts)
	if err := c.Process("auth-1").Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if asked["auth-1"] != 2 || asked["auth-2"] != 1 || asked["auth-migrate"] != 1 {
		t.Errorf("asked %v", asked)
	}
}

func who(t *testing.T, c *Cluster) string {
	t.Helper()
	resp, err := infra.Asker.Do(request(t, c.PublicURL()+"/who"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func request(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func mustInfo(t *testing.T, c *Cluster) Info {
	t.Helper()
	info, err := c.state.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func adminDB(t *testing.T, c *Cluster) *sql.DB {
	t.Helper()
	dsn, err := c.DSN("")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func execute(t *testing.T, c *Cluster, statement string) {
	t.Helper()
	if _, err := adminDB(t, c).ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}
