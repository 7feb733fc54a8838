package cluster

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRemove_NobodyStartsMeanwhile(t *testing.T) {
	state := State(t.TempDir())
	release, err := state.lock(0)
	if err != nil {
		t.Fatal(err)
	}
	release()
	for n := range 5000 { // it takes a while
		if err := os.WriteFile(state.path("secrets", fmt.Sprint(n)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	end := make(chan error, 1)
	go func() { end <- state.Remove() }()
	for removed := false; !removed; {
		release, err := state.lock(time.Millisecond)
		select {
		case err := <-end:
			if err != nil {
				t.Error(err)
			}
			removed = true
		default:
		}
		if errors.Is(err, ErrRunning) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		// Before it has begun there are all, and after it none.
		left, err := os.ReadDir(state.path("secrets"))
		if err != nil || (len(left) != 0 && len(left) != 5000) {
			t.Errorf("another owner finds %d of 5000 files, %v", len(left), err)
		}
		if !state.holds() {
			t.Error("the lock that was taken is not the one that the next to come will take")
		}
		release()
		time.Sleep(100 * time.Microsecond)
	}
}

// holds reports whether somebody owns the state folder.
func (s State) holds() bool {
	release, err := s.lock(0)
	if err == nil {
		release()
	}
	return errors.Is(err, ErrRunning)
}

func TestInfo_DiffersInNumbersAndServers(t *testing.T) {
	base := Options{Root: t.TempDir(), StateDir: t.TempDir(), BasePort: 8000}
	info := func(o Options) Info {
		o, err := o.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		a, ports := layout(o, o.BasePort)
		i := Info{Addrs: a}
		for _, name := range ports {
			if !slices.Contains(i.Processes, name) {
				i.Processes = append(i.Processes, name)
			}
		}
		return i
	}
	if differs, err := info(base).Differs(base); err != nil || len(differs) > 0 {
		t.Errorf("the same settings differ: %v, %v", differs, err)
	}
	for want, change := range map[string]func(*Options){
		"2 of gateway, not 4":                              func(o *Options) { o.Gateways = 4 },
		"2 of logic, not 1":                                func(o *Options) { o.Logics = 1 },
		"mysql at 127.0.0.1:8091, not at db:3306":          func(o *Options) { o.External.MySQLDSN = "u:secret@tcp(db:3306)/" },
		"redis at 127.0.0.1:8092, not at cache:6379":       func(o *Options) { o.External.RedisAddr = "cache:6379" },
		"etcd at 127.0.0.1:8093, not at one:2379,two:2379": func(o *Options) { o.External.Etcd = []string{"one:2379", "two:2379"} },
		"nsqd at 127.0.0.1:8095, not at bus:4150":          func(o *Options) { o.External.NSQD = "bus:4150" },
	} {
		other := base
		change(&other)
		differs, err := info(base).Differs(other)
		if got := strings.Join(differs, "; "); err != nil || got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
		if differs, err := info(other).Differs(other); err != nil || len(differs) > 0 {
			t.Errorf("%s: the same settings differ: %v, %v", want, differs, err)
		}
	}
}
