package check

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"im-services/internal/imclient"
)

const (
	sampleEvery = 2 * time.Second
	tellEvery   = 10 * time.Second
	lagEvery    = 20 * time.Millisecond
)

// watch samples the processes' resources and the checker's own timers until ctx
// ends, and tells of the progress.
func (r *run) watch(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { r.watchLag(ctx) })
	defer wg.Wait()
	sample, tell := time.NewTicker(sampleEvery), time.NewTicker(tellEvery)
	defer sample.Stop()
	defer tell.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sample.C:
			r.sample(ctx)
		case <-tell.C:
			var sum imclient.Stats
			for _, a := range r.actors {
				a.mu.Lock()
				c := a.client
				a.mu.Unlock()
				if c != nil {
					s := c.Stats()
					sum.Acked += s.Acked
					sum.Shown += s.Shown
					sum.Pending += s.Pending
				}
			}
			r.say("acknowledged %d, shown %d, on their way %d (by the clients of now)", sum.Acked, sum.Shown, sum.Pending)
		}
	}
}

// watchLag measures how late timers are: what the machine itself adds to every
// latency. The time that the log takes to be added to counts: whatever happens
// meanwhile is noted later than that.
func (r *run) watchLag(ctx context.Context) {
	var worst time.Duration
	woke := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		sleep(ctx, lagEvery)
		now := time.Now()
		worst = max(worst, now.Sub(woke)-lagEvery)
		woke = now
		if n%10 == 9 {
			r.log.add(&Event{Type: imclient.OK, Op: OpLag, Seq: int64(worst)})
			worst = 0
		}
	}
}

// sample reads the metrics of every service of an own cluster.
func (r *run) sample(ctx context.Context) {
	if r.system.cluster == nil {
		return
	}
	for _, name := range serviceNames {
		e := Event{Type: imclient.OK, Op: OpSample, Text: name}
		if readMetrics(ctx, "http://"+r.system.cluster.Addr(name+"/debug")+"/metrics", &e) == nil {
			r.log.add(&e)
		}
	}
}

var metricsClient = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func readMetrics(ctx context.Context, target string, e *Event) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	resp, err := metricsClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 8<<20))
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			continue
		}
		switch name {
		case "process_resident_memory_bytes":
			e.ID = int64(value)
		case "go_goroutines":
			e.Seq = int64(value)
		case "process_open_fds":
			e.Code = int(value)
		}
	}
	return lines.Err()
}

// presence asks everybody about his friends: first with all online, then after
// some have left. Those who stay must have been told by then.
func (r *run) presence() {
	r.ask("", func(*actor) bool { return true })
	var gone []*actor
	for i, a := range r.actors {
		if i%4 == 3 {
			gone = append(gone, a)
			a.leave()
			r.log.add(&Event{Client: a.user.ID, Type: imclient.OK, Op: OpOnline, Code: imclient.CodeOffline})
		}
	}
	sleep(r.ctx, r.o.Bounds.Presence+2*time.Second+r.starvation())
	left := map[*actor]bool{}
	for _, a := range gone {
		left[a] = true
	}
	r.ask(transition, func(a *actor) bool { return !left[a] })
}

// starvation is for how much longer one must wait on a machine that has no
// processor time to spare before something counts as missing.
func (r *run) starvation() time.Duration {
	var worst int64
	for e := range r.log.all() {
		if e.Op == OpLag {
			worst = max(worst, e.Seq)
		}
	}
	return min(10*time.Duration(worst), 40*time.Second)
}

// ask lets those who are online ask about those they share a friendship with.
// With mark, only those who are not are asked about.
func (r *run) ask(mark string, online func(*actor) bool) {
	n := len(r.actors)
	for _, a := range r.actors {
		if online(a) && mark == "" {
			r.log.add(&Event{Client: a.user.ID, Type: imclient.OK, Op: OpOnline, Code: imclient.CodeOnline})
		}
	}
	for i, viewer := range r.actors {
		patience := stumbles
		for _, j := range []int{i + 1, i + 2, i + n - 1, i + n - 2} {
			subject := r.actors[j%n]
			if !online(viewer) || subject == viewer || mark != "" && online(subject) {
				continue
			}
			var out struct {
				Status int `json:"status"`
			}
			var err error
			insist(r.ctx, &patience, func() bool {
				ctx, cancel := context.WithTimeout(r.ctx, callLimit)
				defer cancel()
				err = viewer.api.Call(ctx, http.MethodGet, "/api/friends/status/"+intText(subject.user.ID), url.Values{}, &out)
				return err == nil
			})
			e := Event{Client: viewer.user.ID, Op: OpStatus, To: subject.user.ID, Code: out.Status, Reason: mark}
			if e.Type, _ = outcome(err); err != nil {
				e.Reason = err.Error()
			}
			r.log.add(&e)
		}
	}
}
