package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"im-services/internal/cluster/infra"
)

// roles are the database servers of a cluster: one, or a primary and its replica
// (Options.MySQLReplica).
type roles struct {
	turn sync.Mutex // held while roles change

	mu      sync.Mutex
	servers []infra.MySQL // guarded by mu; the primary first
	inStep  bool          // guarded by mu; the replica has all that was ever acknowledged, and will
	lastID  uint32        // guarded by mu; the newest server id given
}

// ErrNoReplica means that nobody can take over: there is no replica, or it does
// not have everything.
var ErrNoReplica = errors.New("no replica has everything that was acknowledged")

// fenceLimit is how long a primary that does not answer is asked to stop writing.
const fenceLimit = 4 * time.Second

// Primary is the database server of the cluster's own that takes writes. The other
// one of a pair becomes it by FailOver and SwitchOver.
func (c *Cluster) Primary() infra.MySQL {
	primary, _, _ := c.pair()
	return primary
}

// pair returns the primary and the replica, without a name if there is none.
func (c *Cluster) pair() (primary, replica infra.MySQL, inStep bool) {
	c.roles.mu.Lock()
	defer c.roles.mu.Unlock()
	for i, m := range c.roles.servers {
		if i == 0 {
			primary = m
		} else {
			replica = m
		}
	}
	return primary, replica, c.roles.inStep
}

func (c *Cluster) setPair(primary, replica infra.MySQL, inStep bool) {
	primary.ReadOnly, replica.ReadOnly = false, true
	c.roles.mu.Lock()
	defer c.roles.mu.Unlock()
	c.roles.servers, c.roles.inStep = []infra.MySQL{primary, replica}, inStep
}

// databaseUnit describes the database server of that name in the role it has.
func (c *Cluster) databaseUnit(name string) (infra.Unit, error) {
	c.roles.mu.Lock()
	defer c.roles.mu.Unlock()
	for _, m := range c.roles.servers {
		if m.Name == name {
			return m.Unit()
		}
	}
	return infra.Unit{}, fmt.Errorf("no database server %s", name)
}

// startMySQL starts the database, of one process or two.
func (c *Cluster) startMySQL(ctx context.Context, processes ...*Process) error {
	defer c.busyWith("getting MySQL ready")()
	program, err := infra.FindMySQL(ctx, c.say)
	if err != nil {
		return err
	}
	password, err := c.state.secret("mysql")
	if err != nil {
		return err
	}
	if err := c.checkPair(ctx, program); err != nil {
		return err
	}
	for i, p := range processes {
		m := infra.MySQL{
			Program: program, Name: p.name, Dir: c.state.data(p.name), LogFile: c.state.LogFile(p.name),
			Port: c.port(p.name), BufferPoolMB: 256, RedoLogMB: 96,
			User: "im", Password: password, Databases: databases(),
		}
		if c.opts.MySQLReplica {
			c.roles.lastID++
			m.ServerID, m.ReadOnly = c.roles.lastID, i > 0
			// What a primary finds in its log after a crash nobody acknowledged, and the
			// replica may not have it: if it came back and was read before the replica is
			// there, the next fail-over would lose what somebody has seen.
			p.noRestart = true
		}
		if err := m.Prepare(ctx); err != nil {
			return err
		}
		c.roles.servers = append(c.roles.servers, m)
		p.unit = func() (infra.Unit, error) { return c.databaseUnit(p.name) }
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, p := range processes {
		g.Go(func() error { return c.startInfraProcess(gctx, p, program.Origin) })
	}
	if err := g.Wait(); err != nil || !c.opts.MySQLReplica {
		return err
	}
	return c.joinReplica(ctx)
}

// checkPair refuses a state folder whose database would not be what was asked for.
func (c *Cluster) checkPair(ctx context.Context, program infra.Program) error {
	first, second := infra.MySQL{Dir: c.state.data("mysql")}, infra.MySQL{Dir: c.state.data("mysql-2")}
	exists := func(m infra.MySQL) bool {
		_, err := os.Stat(m.DataDir())
		return err == nil
	}
	switch {
	case !c.opts.MySQLReplica && exists(second):
		return fmt.Errorf("cluster: the database in %s had a replica, and either may be the newer: start with a new folder", c.state)
	case !c.opts.MySQLReplica:
		return nil
	case exists(first) || exists(second):
		return fmt.Errorf("cluster: a database with a replica needs a new state folder, and %s holds one", c.state)
	}
	return infra.CheckReplication(ctx, program)
}

// joinReplica makes the replica follow the primary from where it is itself, and
// commits wait for it.
func (c *Cluster) joinReplica(ctx context.Context) error {
	primary, replica, _ := c.pair()
	addr := c.addrs[primary.Name]
	if c.opts.Replicated != nil {
		addr = c.opts.Replicated(addr)
	}
	if err := replica.Follow(ctx, primary, addr); err != nil {
		return err
	}
	if err := primary.RequireAck(ctx, replica); err != nil {
		return err
	}
	c.setPair(primary, replica, true)
	c.log.Info("the replica has everything", "primary", primary.Name, "replica", replica.Name)
	return nil
}

// FailOver makes the replica the primary, whatever became of the old one: that is
// fenced first, so that it acknowledges nothing any more. The new primary has no
// replica until Rebuild.
func (c *Cluster) FailOver(ctx context.Context) error {
	c.roles.turn.Lock()
	defer c.roles.turn.Unlock()
	old, next, inStep := c.pair()
	if !inStep || !c.Process(next.Name).Running() {
		return ErrNoReplica
	}
	var alive *infra.MySQL
	if c.fence(ctx, old) {
		alive = &old
	}
	if err := next.Detach(ctx, alive); err != nil {
		return err
	}
	return c.promote(ctx, old, next)
}

// fence makes sure that a server acknowledges nothing any more, and reports
// whether it still answers. It is not stopped by SIGTERM: a commit that waits for
// the replica would be answered then as if it had an answer.
func (c *Cluster) fence(ctx context.Context, m infra.MySQL) (alive bool) {
	p := c.Process(m.Name)
	if p.Running() {
		ctx, cancel := context.WithTimeout(ctx, fenceLimit)
		defer cancel()
		err := m.Demote(ctx)
		if err == nil {
			return true
		}
		c.log.Warn("the old primary does not stop writing by itself", "process", m.Name, "err", err)
	}
	p.Halt()
	return false
}

// promote lets next take writes, which has all that old acknowledged.
func (c *Cluster) promote(ctx context.Context, old, next infra.MySQL) error {
	c.setPair(next, old, false)
	if c.opts.Rerouted != nil {
		c.opts.Rerouted(c.addrs[next.Name])
	}
	if err := next.Promote(ctx); err != nil {
		return err
	}
	c.log.Info("promoted", "primary", next.Name, "was", old.Name)
	return nil
}

// Rebuild makes what was the primary before a FailOver the replica of the new
// one, as a copy of that: it may hold transactions that nobody acknowledged and
// that the new primary does not have. It has another server id then, for it skips
// transactions that carry its own.
func (c *Cluster) Rebuild(ctx context.Context) error {
	c.roles.turn.Lock()
	defer c.roles.turn.Unlock()
	primary, replica, inStep := c.pair()
	if replica.Name == "" || inStep {
		return errors.New("cluster: no replica is to be rebuilt")
	}
	p := c.Process(replica.Name)
	p.Halt()
	if err := os.RemoveAll(replica.DataDir()); err != nil {
		return err
	}
	if err := replica.Prepare(ctx); err != nil {
		return err
	}
	c.roles.mu.Lock()
	c.roles.lastID++
	replica.ServerID = c.roles.lastID
	c.roles.mu.Unlock()
	c.setPair(primary, replica, false)
	if err := p.Start(ctx); err != nil {
		return err
	}
	if err := replica.CopyFrom(ctx, primary); err != nil {
		return err
	}
	return c.joinReplica(ctx)
}

// SwitchOver swaps the roles of primary and replica, both of which are well: the
// primary stops taking writes, the replica catches up and takes them.
func (c *Cluster) SwitchOver(ctx context.Context) error {
	c.roles.turn.Lock()
	defer c.roles.turn.Unlock()
	old, next, inStep := c.pair()
	if !inStep {
		return ErrNoReplica
	}
	err := old.Demote(ctx)
	if err == nil {
		err = next.Detach(ctx, &old)
	}
	if err != nil {
		return errors.Join(err, old.Promote(ctx))
	}
	if err := c.promote(ctx, old, next); err != nil {
		return err
	}
	return c.joinReplica(ctx)
}
