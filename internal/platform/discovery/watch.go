package discovery

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// lapseGrace is how long an instance is kept after its lease ran out. When
	// etcd stood still, every lease runs out at once and comes back sooner.
	lapseGrace = 750 * time.Millisecond
	// resyncGraceLeases, in lease times, is how long an instance is kept that
	// is missing after etcd was away: it may be on its way back, too.
	resyncGraceLeases = 2
	// rewindEvery is how often the store is compared with what is known of it: an
	// etcd that lost its data starts over, and a watch from a revision in its
	// future would be silent, without an error, about all that comes before.
	rewindEvery = 2500 * time.Millisecond
)

var (
	errWatchClosed = errors.New("discovery: the watch was closed")
	errRewound     = errors.New("discovery: etcd has lost its data")
)

// Watcher follows the instances of one service. Safe for concurrent use; it
// lives as long as its Registry.
type Watcher struct {
	registry *Registry
	service  string
	ready    chan struct{} // closed with the first list

	mu        sync.Mutex // guards the following fields
	instances []Instance // sorted by ID; replaced, never changed
	change    chan struct{}
	callbacks []func([]Instance)

	notify sync.Mutex // keeps callbacks in order; taken before mu
}

// Watch returns the watcher of a service, the same one each time.
func (r *Registry) Watch(service string) *Watcher {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w, ok := r.watchers[service]; ok {
		return w
	}
	w := &Watcher{registry: r, service: service, ready: make(chan struct{}), change: make(chan struct{})}
	r.watchers[service] = w
	r.wg.Go(func() { w.run(r.ctx) })
	return w
}

// Instances returns the known instances, sorted by ID. The slice is shared: do
// not change it.
func (w *Watcher) Instances() []Instance {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.instances
}

// Changed returns a channel that is closed at the next change of the list. Take
// it before Instances, or a change in between is missed.
func (w *Watcher) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.change
}

// OnChange calls f with the list now, if there is one, and after each change,
// one call at a time. f must return quickly and must not call OnChange.
func (w *Watcher) OnChange(f func([]Instance)) {
	w.notify.Lock()
	defer w.notify.Unlock()
	w.mu.Lock()
	w.callbacks = append(w.callbacks, f)
	list := w.instances
	w.mu.Unlock()
	select {
	case <-w.ready:
		f(list)
	default:
	}
}

// Ready waits for the first list, which may be empty.
func (w *Watcher) Ready(ctx context.Context) error {
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// view is what the run loop knows: live instances, and departed ones with the
// time until which they are still shown.
type view struct {
	revs map[string]int64 // of every key, when it was last written
	live map[string]Instance
	held map[string]heldInstance
}

type heldInstance struct {
	Instance
	until time.Time
}

// run lists, watches, and starts over when the watch fails.
func (w *Watcher) run(ctx context.Context) {
	v := view{revs: map[string]int64{}, live: map[string]Instance{}, held: map[string]heldInstance{}}
	log := w.registry.log.With("service", w.service)
	failed := false
	for ctx.Err() == nil {
		rev, err := w.list(ctx, &v)
		if err == nil {
			if failed {
				log.Info("watching again", "instances", len(v.live))
			}
			failed = false
			w.publish(&v)
			err = w.follow(ctx, &v, rev)
		}
		if ctx.Err() != nil {
			return
		}
		if !failed {
			log.Warn("watch failed; keeping the instances known", "err", err, "instances", len(w.Instances()))
		}
		failed = true
		pause(ctx, retryEvery)
	}
}

// list reads all instances. What was shown before and is missing now is held.
func (w *Watcher) list(ctx context.Context, v *view) (rev int64, err error) {
	op, cancel := context.WithTimeout(ctx, opLimit)
	defer cancel()
	res, err := w.registry.client.Get(op, w.registry.folder(w.service), clientv3.WithPrefix())
	if err != nil {
		return 0, err
	}
	live := make(map[string]Instance, len(res.Kvs))
	v.revs = revisions(res.Kvs)
	for _, kv := range res.Kvs {
		if inst, leaving, ok := w.parse(kv); ok && !leaving {
			live[inst.ID] = inst
		}
	}
	until := time.Now().Add(resyncGraceLeases * w.registry.cfg.LeaseTTL)
	held := make(map[string]heldInstance)
	for _, inst := range w.Instances() {
		if _, ok := live[inst.ID]; !ok {
			held[inst.ID] = heldInstance{inst, until}
		}
	}
	v.live, v.held = live, held
	return res.Header.Revision, nil
}

// follow applies changes after rev until the watch fails.
func (w *Watcher) follow(ctx context.Context, v *view, rev int64) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	events := w.registry.client.Watch(ctx, w.registry.folder(w.service),
		clientv3.WithPrefix(), clientv3.WithRev(rev+1))
	expiry := time.NewTimer(time.Hour)
	defer expiry.Stop()
	rewind := time.NewTicker(rewindEvery)
	defer rewind.Stop()
	differed := false
	for {
		expiry.Reset(v.nextExpiry())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-expiry.C:
		case <-rewind.C:
			behind, differs := w.compare(ctx, v, rev)
			// Once may be a change on its way here.
			if behind || differs && differed {
				return errRewound
			}
			differed = differs
		case res, ok := <-events:
			if !ok {
				return errWatchClosed
			}
			if err := res.Err(); err != nil {
				return err
			}
			rev = max(rev, res.Header.Revision)
			for _, ev := range res.Events {
				w.apply(v, ev)
			}
		}
		v.expire(time.Now())
		w.publish(v)
	}
}

// compare reports whether etcd is behind rev, and whether it holds other keys than
// the view, or of other revisions: one that lost its data may have come as far
// again already. Of an etcd that does not answer neither is known.
func (w *Watcher) compare(ctx context.Context, v *view, rev int64) (behind, differs bool) {
	op, cancel := context.WithTimeout(ctx, opLimit)
	defer cancel()
	res, err := w.registry.client.Get(op, w.registry.folder(w.service), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return false, false
	}
	return res.Header.Revision < rev, !maps.Equal(revisions(res.Kvs), v.revs)
}

func revisions(kvs []*mvccpb.KeyValue) map[string]int64 {
	revs := make(map[string]int64, len(kvs))
	for _, kv := range kvs {
		revs[string(kv.Key)] = kv.ModRevision
	}
	return revs
}

// apply works one change into the view.
func (w *Watcher) apply(v *view, ev *clientv3.Event) {
	if ev.Type == mvccpb.DELETE {
		delete(v.revs, string(ev.Kv.Key))
		id := strings.TrimPrefix(string(ev.Kv.Key), w.registry.folder(w.service))
		if inst, ok := v.live[id]; ok {
			delete(v.live, id)
			v.held[id] = heldInstance{inst, time.Now().Add(lapseGrace)}
		}
		return
	}
	v.revs[string(ev.Kv.Key)] = ev.Kv.ModRevision
	inst, leaving, ok := w.parse(ev.Kv)
	if !ok {
		return
	}
	delete(v.held, inst.ID)
	delete(v.live, inst.ID)
	if !leaving {
		v.live[inst.ID] = inst
	}
}

// parse reads an instance from its key and value.
func (w *Watcher) parse(kv *mvccpb.KeyValue) (inst Instance, leaving, ok bool) {
	var rec record
	id := strings.TrimPrefix(string(kv.Key), w.registry.folder(w.service))
	if err := json.Unmarshal(kv.Value, &rec); err != nil || id == "" || strings.Contains(id, "/") || rec.Addr == "" {
		w.registry.log.Warn("not an instance", "key", string(kv.Key))
		return Instance{}, false, false
	}
	return Instance{ID: id, Addr: rec.Addr, Meta: rec.Meta}, rec.Leaving, true
}

// nextExpiry is the time until the first held instance is dropped.
func (v *view) nextExpiry() time.Duration {
	next := time.Hour
	for _, h := range v.held {
		next = min(next, time.Until(h.until))
	}
	return max(next, 0)
}

// expire drops the held instances whose time has come.
func (v *view) expire(now time.Time) {
	maps.DeleteFunc(v.held, func(_ string, h heldInstance) bool { return !now.Before(h.until) })
}

// publish shows the view if it differs from what is shown.
func (w *Watcher) publish(v *view) {
	list := slices.Collect(maps.Values(v.live))
	for _, h := range v.held {
		list = append(list, h.Instance)
	}
	slices.SortFunc(list, func(a, b Instance) int { return cmp.Compare(a.ID, b.ID) })

	w.notify.Lock()
	defer w.notify.Unlock()
	w.mu.Lock()
	first := false
	select {
	case <-w.ready:
	default:
		first = true
	}
	if !first && slices.EqualFunc(w.instances, list, equal) {
		w.mu.Unlock()
		return
	}
	w.instances = list
	close(w.change)
	w.change = make(chan struct{})
	callbacks := slices.Clone(w.callbacks)
	w.mu.Unlock()
	if first {
		close(w.ready)
	}
	for _, f := range callbacks {
		f(list)
	}
}

func equal(a, b Instance) bool {
	return a.ID == b.ID && a.Addr == b.Addr && maps.Equal(a.Meta, b.Meta)
}
