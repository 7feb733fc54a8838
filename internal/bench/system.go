package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"im-services/internal/bench/crowd"
	"im-services/internal/bench/procs"
	"im-services/internal/cluster"
	"im-services/internal/cluster/infra"
	"im-services/internal/cluster/process"
)

// Local is what the launcher's state folder tells about a running cluster.
type Local struct {
	State cluster.State
	Info  cluster.Info
}

// OpenLocal reads a state folder, such as .local, whose cluster is up.
func OpenLocal(dir string) (*Local, error) {
	l := &Local{State: cluster.State(dir)}
	var err error
	if l.Info, err = l.State.Info(); err != nil {
		return nil, fmt.Errorf("no cluster in %s (make up starts one): %w", dir, err)
	}
	if !l.Info.Ready {
		return nil, fmt.Errorf("the cluster in %s is not ready", dir)
	}
	return l, nil
}

// Gateways are the base URLs of each gateway alone.
func (l *Local) Gateways() []string {
	var out []string
	for _, name := range l.Info.Processes {
		if strings.HasPrefix(name, "gateway-") {
			out = append(out, "http://"+l.Info.Addrs[name])
		}
	}
	return out
}

// Processes are the cluster's processes as they are now.
func (l *Local) Processes() []procs.Process {
	var out []procs.Process
	for _, name := range l.Info.Processes {
		if pid, alive := process.ReadPidFile(l.State.PidFile(name)); alive {
			out = append(out, procs.Process{Name: name, Pid: pid})
		}
	}
	return out
}

// Process is the process of that name, as a list of one or none.
func (l *Local) Process(name string) []procs.Process {
	for _, p := range l.Processes() {
		if p.Name == name {
			return []procs.Process{p}
		}
	}
	return nil
}

// Debug maps processes to their debug listeners.
func (l *Local) Debug() map[string]string {
	out := map[string]string{}
	for name, addr := range l.Info.Addrs {
		if p, ok := strings.CutSuffix(name, "/debug"); ok {
			out[p] = addr
		}
	}
	return out
}

// DSN reaches the cluster's own database server, none of its databases; empty if
// it uses somebody else's.
func (l *Local) DSN() string {
	addr := l.Info.Addrs["mysql"]
	secret, err := os.ReadFile(filepath.Join(string(l.State), "secrets", "mysql"))
	if addr == "" || err != nil {
		return ""
	}
	return fmt.Sprintf("im:%s@tcp(%s)/mysql", bytes.TrimSpace(secret), addr)
}

// Target makes a target of the cluster, with the accounts kept in file.
func (l *Local) Target(ctx context.Context, file string, progress func(string, ...any)) (*Target, *crowd.Crowd, error) {
	gateways := l.Gateways()
	if len(gateways) == 0 {
		return nil, nil, errors.New("the cluster has no gateway")
	}
	people, err := crowd.Open(ctx, gateways[0], file, progress)
	if err != nil {
		return nil, nil, err
	}
	return &Target{
		Name: "system", Gateways: gateways, People: people, Processes: l.Processes, Debug: l.Debug(),
	}, people, nil
}

// RelayChild is a bare relay in a process of its own.
type RelayChild struct {
	Target *Target
	cmd    *exec.Cmd
}

// StartRelay runs the command args, which must print its base URL as its first
// line, and returns it as a target. It ends with ctx or with Close.
func StartRelay(ctx context.Context, args ...string) (*RelayChild, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // this program, asked for by its user
	cmd.Stderr = os.Stderr
	cmd.Env = append([]string{infra.Awake}, os.Environ()...) // as the system has it
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("relay: no address: %w", err)
	}
	base := strings.TrimSpace(line)
	pid := cmd.Process.Pid
	return &RelayChild{cmd: cmd, Target: &Target{
		Name: "relay", Gateways: []string{base},
		People:    &anyone{tell: func(ctx context.Context, g crowd.Group) error { return tellGroup(ctx, base, g) }},
		Processes: func() []procs.Process { return []procs.Process{{Name: "relay", Pid: pid}} },
	}}, nil
}

func tellGroup(ctx context.Context, base string, g crowd.Group) error {
	text, err := json.Marshal(g)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/groups", bytes.NewReader(text))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Body.Close()
}

// Close ends the relay.
func (c *RelayChild) Close() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}
