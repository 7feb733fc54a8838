package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"im-services/internal/cluster/infra"
	"im-services/internal/cluster/process"
)

// State is a cluster's folder.
type State string

// SupervisorName is the pid file of the program that owns a cluster.
const SupervisorName = "supervisor"

func (s State) path(parts ...string) string {
	return filepath.Join(append([]string{string(s)}, parts...)...)
}

// PidFile is where the process of that name is recorded.
func (s State) PidFile(name string) string { return s.path("run", name+".pid") }

// LogFile is what the process of that name writes.
func (s State) LogFile(name string) string { return s.path("logs", name+".log") }

func (s State) data(name string) string { return s.path("data", name) }

// ErrRunning means that another program runs a cluster in the same state folder.
var ErrRunning = errors.New("a cluster is running in this state folder")

// lock makes this program the owner of the state folder until release, waiting
// for another owner to go. The kernel releases it with the program, so a crash
// leaves no stale lock.
func (s State) lock(wait time.Duration) (release func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	release, err = infra.Lock(ctx, s.lockFile())
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("%w: %s", ErrRunning, string(s))
	}
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{"logs", "data", "secrets"} {
		if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
			release()
			return nil, err
		}
	}
	return release, nil
}

func (s State) lockFile() string { return s.path("run", "lock") }

// sweep ends the processes that an earlier run left behind and returns their
// names. Only the owner of the state folder may call it.
func (s State) sweep(grace time.Duration) ([]string, error) {
	files, err := filepath.Glob(s.PidFile("*"))
	if err != nil {
		return nil, err
	}
	var swept []string
	var errs []error
	for _, file := range files {
		if _, alive := process.ReadPidFile(file); alive {
			swept = append(swept, strings.TrimSuffix(filepath.Base(file), ".pid"))
		}
		errs = append(errs, process.KillPidFile(file, grace))
	}
	return swept, errors.Join(errs...)
}

// secret returns the content of a generated secret, making it at first use.
func (s State) secret(name string) (string, error) {
	file := s.path("secrets", name)
	text, err := os.ReadFile(file) //nolint:gosec // our own state folder
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return "", err
	}
	made := hex.EncodeToString(key)
	// Several processes are prepared at once: the first to link its key in place
	// has made it, and the others take that one.
	fresh := fmt.Sprintf("%s.%s", file, made[:16])
	if err := os.WriteFile(fresh, []byte(made+"\n"), 0o600); err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(fresh) }()
	if err := os.Link(fresh, file); errors.Is(err, os.ErrExist) {
		return s.secret(name)
	} else if err != nil {
		return "", err
	}
	return made, nil
}

// Info is what is recorded about a running cluster for other programs.
type Info struct {
	PublicURL string            `json:"public_url"`
	Processes []string          `json:"processes"` // in the order of their start
	Addrs     map[string]string `json:"addrs"`
	Ready     bool              `json:"ready"` // the start is complete
}

// Differs says, for people, in what the running cluster is not the one that o asks
// for: its numbers of processes and the servers behind them.
func (i Info) Differs(o Options) ([]string, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range services {
		has := 0
		for _, name := range i.Processes {
			if kindOf(name) == s.name {
				has++
			}
		}
		if wanted := o.replicas(s.name); has != wanted {
			out = append(out, fmt.Sprintf("%d of %s, not %d", has, s.name, wanted))
		}
	}
	addrs, _ := layout(o, o.BasePort)
	for _, name := range []string{"mysql", "redis", "etcd", "nsqd"} {
		// Only one of the two is there.
		has, wanted := i.Addrs[name]+i.Addrs[name+"/external"], addrs[name]+addrs[name+"/external"]
		if has != wanted {
			out = append(out, fmt.Sprintf("%s at %s, not at %s", name, has, wanted))
		}
	}
	return out, nil
}

// Places says where to go, for people.
func (i Info) Places() string {
	return fmt.Sprintf("  API             %s/api\n  API reference   %s/swagger/index.html\n  socket          ws%s/im/connect?token=<token>",
		i.PublicURL, i.PublicURL, strings.TrimPrefix(i.PublicURL, "http"))
}

func (s State) infoFile() string { return s.path("run", "cluster.json") }

// writeInfo records i, at once or not at all.
func (s State) writeInfo(i Info) error {
	text, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	tmp := s.infoFile() + ".tmp"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, s.infoFile())
}

// Info returns what the running cluster, or the last one, recorded.
func (s State) Info() (Info, error) {
	var i Info
	text, err := os.ReadFile(s.infoFile())
	if err != nil {
		return i, err
	}
	return i, json.Unmarshal(text, &i)
}

// Supervisor returns the process that owns the cluster, if it is alive.
func (s State) Supervisor() (pid int, alive bool) {
	return process.ReadPidFile(s.PidFile(SupervisorName))
}

// lastSteps is how long a supervisor whose pid file is gone may take to be gone
// itself: removing the file is nearly the last it does.
const lastSteps = 3 * time.Second

// Sweep ends the processes that a supervisor which is gone, or going, left
// behind, and returns their names. It fails with ErrRunning while one is alive.
func (s State) Sweep() ([]string, error) {
	if _, err := os.Stat(s.path("run")); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var swept []string
	err := s.asOwner(func() (err error) {
		swept, err = s.sweepAll()
		return err
	})
	return swept, err
}

// Remove deletes data, logs, secrets and built programs. It fails with
// ErrRunning while a supervisor is alive, and none can start meanwhile.
func (s State) Remove() error {
	return s.asOwner(func() error {
		if _, err := s.sweepAll(); err != nil {
			return err
		}
		var errs []error
		for _, pattern := range []string{"logs", "data", "secrets", programs, "bin*", "run/*"} {
			found, _ := filepath.Glob(s.path(pattern))
			for _, path := range found {
				if path != s.lockFile() {
					errs = append(errs, os.RemoveAll(path))
				}
			}
		}
		// Whoever starts from here on makes a new lock, and the folder then stays.
		errs = append(errs, os.Remove(s.lockFile()))
		_ = os.Remove(s.path("run"))
		return errors.Join(errs...)
	})
}

// asOwner calls f while no other program can own the state folder.
func (s State) asOwner(f func() error) error {
	release, err := s.lock(lastSteps)
	if err != nil {
		return err
	}
	defer release()
	return f()
}

// sweepAll is sweep for a cluster whose supervisor is gone.
func (s State) sweepAll() ([]string, error) {
	if err := os.Remove(s.infoFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return s.sweep(serviceStop)
}
