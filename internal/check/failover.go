package check

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-sql-driver/mysql"

	"im-services/internal/imclient"
)

// roleFaults are the faults of a database with a replica.
func (s *system) roleFaults() []extra {
	if s.cluster == nil || !s.replica {
		return nil
	}
	var out []extra
	for _, kind := range roleKinds {
		out = append(out, extra{kind, []string{"mysql"}})
	}
	return out
}

// database returns the DSN of im_logic on the primary of the moment; empty if it
// is not to be had.
func (s *system) database() (string, error) {
	if s.cluster == nil {
		return s.dsn, nil
	}
	return s.cluster.DSN("im_logic")
}

// databaseLinks are the links of services to the database.
func (s *system) databaseLinks() []string {
	return slices.DeleteFunc(s.linkNames(), func(name string) bool { return !toDatabase(name) })
}

// rerouted sends the services to where the database is from now on: it is to them
// what a proxy or a virtual address is in production. Their open connections end.
func (s *system) rerouted(addr string) {
	for _, name := range s.databaseLinks() {
		p := s.proxy(name)
		p.Retarget(addr)
		p.Heal()
		p.Reset()
	}
	if s.promoted != nil {
		s.promoted()
	}
}

// replication is the link by which the replica has what the primary commits.
const replication = "replica>primary"

// replicated returns where the replica reaches a primary at addr.
func (s *system) replicated(addr string) string {
	via, err := s.link(replication, addr)
	if err != nil {
		return addr
	}
	p := s.proxy(replication)
	p.Retarget(addr)
	p.Heal()
	return via
}

// changeRoles makes the replica of the database the primary, by what befalls the
// old one, and the old one the replica. The history gets the epoch before and
// after, the moment from which the new primary takes writes, and whether the old
// one still did.
func (r *run) changeRoles(ctx context.Context, f *fault) error {
	ctx, cancel := context.WithTimeout(ctx, f.Length+2*recovery)
	defer cancel()
	c := r.system.cluster
	old := c.Primary()
	before, err := r.epochBefore(ctx, f)
	if err != nil {
		return err
	}
	r.system.promoted = func() {
		r.log.add(&Event{Conn: f.Number, Type: imclient.OK, Op: OpPromoted, Text: c.Primary().Name})
	}
	switch f.Kind {
	case SwitchOver:
		err = c.SwitchOver(ctx)
	case Fence:
		for _, name := range r.system.databaseLinks() {
			r.system.proxy(name).Partition()
		}
		sleep(ctx, f.Length)
		err = c.FailOver(ctx)
	case FailOver:
		// It dies when its replica had not everything for a while: what that lacks
		// nobody may have been told.
		r.system.proxy(replication).Partition()
		sleep(ctx, f.Length)
		c.Process(old.Name).Kill()
		err = c.FailOver(ctx)
	}
	if err != nil {
		return err
	}
	r.epochAfter(ctx, f, before)
	if f.Kind == SwitchOver {
		return nil
	}
	r.log.add(&Event{Conn: f.Number, Type: writeTo(ctx, old.OwnDSN("im_logic")), Op: OpFenced, Text: old.Name})
	return c.Rebuild(ctx)
}

// epochBefore asks for the epoch of now.
func (r *run) epochBefore(ctx context.Context, f *fault) (epoch string, err error) {
	until(ctx, func(ctx context.Context) error { // the fault before may be felt still
		var answer imclient.SyncAnswer
		answer, err = r.actors[0].api.Sync(ctx, "", nil)
		epoch = answer.Epoch
		return err
	})
	if err == nil {
		r.log.add(&Event{Conn: f.Number, Type: imclient.Invoke, Op: OpEpoch, Text: epoch})
	}
	return epoch, err
}

// epochAfter asks with the epoch of before until another is named: with the first
// answer, or else the system is too late.
func (r *run) epochAfter(ctx context.Context, f *fault, before string) {
	for end := time.Now().Add(3 * epochTold); time.Now().Before(end) && ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
		call, cancel := context.WithTimeout(ctx, callLimit)
		answer, err := r.actors[0].api.Sync(call, before, nil)
		cancel()
		if err != nil || answer.Epoch == before {
			continue
		}
		e := Event{Conn: f.Number, Type: imclient.OK, Op: OpEpoch, Text: answer.Epoch}
		if !answer.FullResync {
			e.Type, e.Reason = imclient.Fail, "no full_resync"
		}
		r.log.add(&e)
		return
	}
	r.log.add(&Event{Conn: f.Number, Type: imclient.Fail, Op: OpEpoch, Text: before, Reason: "no other epoch"})
}

// writeTo writes as a service does, and returns ok if that was acknowledged.
func writeTo(ctx context.Context, dsn string) string {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return imclient.Info
	}
	cfg.Timeout, cfg.ReadTimeout = 2*time.Second, 5*time.Second
	db, err := sql.Open("mysql", cfg.FormatDSN())
	if err != nil {
		return imclient.Info
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, "INSERT INTO meta (name, value) VALUES ('checked', UTC_TIMESTAMP()) ON DUPLICATE KEY UPDATE value = VALUES(value)"); err != nil {
		return imclient.Fail
	}
	return imclient.OK
}

// forRoles makes a cluster's database a pair.
func (o *Options) forRoles(want func(kind, target string) bool) error {
	scheduled := o.Schedule != nil && slices.ContainsFunc(o.Schedule.Faults, func(f fault) bool { return slices.Contains(roleKinds, f.Kind) })
	switch {
	case !o.Replica && !scheduled:
		return nil
	case o.Base != "" || want == nil:
		return errors.New("check: a replica is for faults of an own cluster")
	}
	o.Replica = true
	if o.Schedule != nil {
		for _, f := range o.Schedule.Faults {
			if (f.Target == "mysql" || f.Target == "mysql-2") && !slices.Contains(roleKinds, f.Kind) {
				return fmt.Errorf("check: %s: nobody starts a server of a pair again, it is failed over", f.String())
			}
		}
	}
	return nil
}
