package check

import (
	"context"
	"time"

	"im-services/internal/imclient"
)

// syncSession follows one chain of sync answers: the cursors of a round are what
// the server said in the rounds before.
type syncSession struct {
	number  int
	epoch   string
	cursors map[int64]int64
	hole    bool // the last round ended at one, and so will all others
}

// callLimit bounds one call to the system.
const callLimit = 10 * time.Second

// round syncs until the server says complete, and reports whether it did.
func (s *syncSession) round(ctx context.Context, a *actor) bool {
	if s.cursors == nil {
		s.cursors = map[int64]int64{}
	}
	s.hole = false
	a.run.log.add(&Event{Client: a.user.ID, Conn: s.number, Type: imclient.Invoke, Op: OpSynced})
	for ctx.Err() == nil {
		list := make([]imclient.Cursor, 0, len(s.cursors))
		for _, conv := range sortedKeys(s.cursors) {
			list = append(list, imclient.Cursor{Conversation: conv, Seq: s.cursors[conv]})
		}
		callCtx, cancel := context.WithTimeout(ctx, callLimit)
		answer, err := a.api.Sync(callCtx, s.epoch, list)
		cancel()
		if err != nil {
			a.run.log.add(&Event{Client: a.user.ID, Conn: s.number, Type: imclient.Info, Op: OpSynced, Reason: err.Error()})
			return false
		}
		s.epoch = answer.Epoch
		if answer.FullResync {
			clear(s.cursors)
			continue
		}
		moved := false
		for _, conv := range answer.Conversations {
			moved = moved || conv.Seq != s.cursors[conv.Conversation]
			for _, raw := range conv.Messages {
				var f imclient.Frame
				if err := f.Parse(raw); err != nil {
					a.run.log.add(&Event{Client: a.user.ID, Conn: s.number, Type: imclient.Fail, Op: OpSynced, Reason: err.Error()})
					return false
				}
				a.run.log.add(&Event{
					Client: a.user.ID, Conn: s.number, Type: imclient.OK, Op: imclient.OpSync, ClientID: f.ClientID, Channel: f.Channel,
					To: f.To, From: f.From, Text: f.Text(), ID: f.ID, Conversation: f.Conversation, Seq: f.Seq,
				})
			}
			s.cursors[conv.Conversation] = conv.Seq
		}
		if answer.Complete {
			a.run.log.add(&Event{Client: a.user.ID, Conn: s.number, Type: imclient.OK, Op: OpSynced})
			return true
		}
		if !moved { // as it is when a conversation has a hole
			s.hole = true
			a.run.log.add(&Event{Client: a.user.ID, Conn: s.number, Type: imclient.Fail, Op: OpSynced, Reason: "not complete, and nothing more comes"})
			return false
		}
	}
	return false
}

// The sync sessions of an actor.
const (
	sessionRunning = 1 // from time to time, while people talk
	sessionFinal   = 2 // from nothing, in the end
)

// readAll reads everything the actor may see, by a sync from nothing and by
// history, and says so in the log.
func (a *actor) readAll(ctx context.Context) {
	final, patience := syncSession{number: sessionFinal}, stumbles
	ok := true
	for _, s := range []*syncSession{&final, &a.syncs} {
		ok = insist(ctx, &patience, func() bool { return s.round(ctx, a) || s.hole }) && !s.hole && ok
	}
	read := map[target]bool{}
	for _, t := range a.targets { // some are in the list twice, to be written to more often
		if read[t] {
			continue
		}
		read[t] = true
		ok = insist(ctx, &patience, func() bool { return a.readHistory(ctx, t) }) && ok
	}
	kind := imclient.OK
	if !ok {
		kind = imclient.Fail
	}
	a.run.log.add(&Event{Client: a.user.ID, Type: kind, Op: OpReadDone})
}

// stumbles is how often reading may fail for one person and be tried again in the
// end: a system that was just healed may stumble.
const stumbles = 3

// insist tries again while there is patience left.
func insist(ctx context.Context, patience *int, f func() bool) bool {
	for {
		switch {
		case f():
			return true
		case *patience == 0:
			return false
		}
		*patience--
		sleep(ctx, time.Second)
	}
}

func (a *actor) readHistory(ctx context.Context, t target) bool {
	if t.channel == imclient.Group && !a.run.memberNow(t.to, a.user.ID) {
		return true // who has left reads what is his by sync alone
	}
	callCtx, cancel := context.WithTimeout(ctx, 6*callLimit)
	defer cancel()
	_, total, err := a.api.Page(callCtx, t.channel, t.to, 0, 1)
	var rows []imclient.Row
	if err == nil {
		rows, err = a.api.History(callCtx, t.channel, t.to)
	}
	if err != nil {
		a.run.say("user %d cannot read the history of %s: %v", a.user.ID, keyOf(t.channel, a.user.ID, t.to), err)
		return false
	}
	conv := a.run.conversation(keyOf(t.channel, a.user.ID, t.to))
	for _, row := range rows {
		a.run.log.add(&Event{
			Client: a.user.ID, Type: imclient.OK, Op: OpRead, ClientID: row.ClientID, Channel: t.channel, To: t.to, From: row.From,
			Text: row.Text, ID: row.ID, Conversation: conv, Seq: row.Seq,
		})
	}
	a.run.log.add(&Event{
		Client: a.user.ID, Type: imclient.OK, Op: OpHistory, Channel: t.channel, To: t.to,
		ID: int64(total), Conversation: conv, Seq: int64(len(rows)),
	})
	return true
}
