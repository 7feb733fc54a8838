// Package procs reads what processes cost from /proc: processor time, memory,
// and how busy the whole machine was meanwhile. On systems without /proc it
// finds no processes and measures nothing.
package procs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of times in /proc: 1/100 s on every Linux we know.
const tick = 10 * time.Millisecond

// Process is a process that is part of what is measured.
type Process struct {
	Name string `json:"name"`
	Pid  int    `json:"pid"`
}

// ParsePids reads a list such as "gateway-1=123,mysql=456".
func ParsePids(list string) ([]Process, error) {
	var out []Process
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, text, ok := strings.Cut(item, "=")
		pid, err := strconv.Atoi(text)
		if !ok || err != nil || pid <= 0 || name == "" {
			return nil, fmt.Errorf("%q is not name=pid", item)
		}
		out = append(out, Process{name, pid})
	}
	return out, nil
}

// Kind is the process's name without the number of the replica.
func (p Process) Kind() string {
	kind, n, ok := strings.Cut(p.Name, "-")
	if _, err := strconv.Atoi(n); !ok || err != nil {
		return p.Name
	}
	return kind
}

// CPU returns the processor time that pid has used, its ended threads included.
func CPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name in parentheses and may itself contain them.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const user, system = 11, 12
	if len(fields) <= system {
		return 0, errors.New("short stat")
	}
	var total int64
	for _, f := range [][]byte{fields[user], fields[system]} {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return time.Duration(total) * tick, nil
}

// RSS returns the bytes of memory that pid has resident.
func RSS(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0, errors.New("short statm")
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// Own returns the processor time this process has used.
func Own() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// machine returns the processor time that all processors together were busy.
func machine() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	fields := bytes.Fields(line)
	var busy int64
	for i, f := range fields {
		const idle, iowait, guest = 4, 5, 9 // guest time is in user time already
		if i == 0 || i == idle || i == iowait || i >= guest {
			continue
		}
		n, _ := strconv.ParseInt(string(f), 10, 64)
		busy += n
	}
	return time.Duration(busy) * tick
}

// Sample is what processes had used at one moment.
type Sample struct {
	at      time.Time
	cpu     map[Process]time.Duration
	own     time.Duration
	machine time.Duration
}

// Take samples the processes; those that are gone are left out.
func Take(list []Process) Sample {
	s := Sample{at: time.Now(), cpu: make(map[Process]time.Duration, len(list)), own: Own(), machine: machine()}
	for _, p := range list {
		if c, err := CPU(p.Pid); err == nil {
			s.cpu[p] = c
		}
	}
	return s
}

// Use is what happened between two samples.
type Use struct {
	Seconds float64 `json:"seconds"`
	// Servers is the processor time in seconds by process.
	Servers map[string]float64 `json:"servers_cpu_s"`
	// Own is the load generator's processor time in seconds.
	Own float64 `json:"generator_cpu_s"`
	// Others is the processor time of processes that are neither: noise.
	Others float64 `json:"others_cpu_s"`
	// Busy is the share of all processors that were busy, 0..1.
	Busy float64 `json:"machine_busy"`
}

// Since compares a later sample with an earlier one. A process that was not in
// the earlier one counts whole: it was started in between.
func (s Sample) Since(before Sample, processors int) Use {
	u := Use{Seconds: s.at.Sub(before.at).Seconds(), Servers: map[string]float64{}}
	u.Own = (s.own - before.own).Seconds()
	for p, c := range s.cpu {
		u.Servers[p.Name] += (c - before.cpu[p]).Seconds()
	}
	busy := (s.machine - before.machine).Seconds()
	u.Others = max(0, busy-u.Own-u.Total())
	if processors > 0 && u.Seconds > 0 {
		u.Busy = min(1, busy/u.Seconds/float64(processors))
	}
	return u
}

// Total is the processor time of all servers in seconds.
func (u Use) Total() float64 {
	var sum float64
	for _, c := range u.Servers {
		sum += c
	}
	return sum
}

// ByKind adds up the replicas of each service.
func (u Use) ByKind() map[string]float64 {
	out := map[string]float64{}
	for name, c := range u.Servers {
		out[Process{Name: name}.Kind()] += c
	}
	return out
}

// Names are the processes of a use in alphabetical order.
func (u Use) Names() []string { return slices.Sorted(maps.Keys(u.Servers)) }
