package logic

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"google.golang.org/grpc"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// What the seeded faults (internal/seeded) do that takes more than a line. None
// of it is in a normal build: every call is behind seeded.On.

// seededRedis is where SeqFromRedis counts.
var seededRedis *routes

func seqFromRedis(ctx context.Context, conv im.ConversationID) im.Seq {
	n, _ := seededRedis.rdb.Incr(ctx, "seq:"+strconv.FormatInt(int64(conv), 10)).Result()
	return im.Seq(n)
}

// ackNow settles a batch before it is committed.
func (p *batchPlan) ackNow() {
	p.settle()
	for i, r := range p.batch {
		if p.outcomes[i].err != nil {
			r.done(refused(p.outcomes[i].err))
		} else {
			r.done(p.outcomes[i].result)
		}
		r.done = func(*logicv1.SendResult) {}
	}
	time.Sleep(30 * time.Millisecond)
}

// rememberedOpen tells whether a conversation was open when it was last looked
// at, within a second.
func rememberedOpen(c *lockedConversation) bool {
	seededOpen.Lock()
	defer seededOpen.Unlock()
	if e, ok := seededOpen.at[c.ID]; ok && time.Since(e.time) < time.Second {
		return e.open
	}
	if seededOpen.at == nil {
		seededOpen.at = map[im.ConversationID]openAt{}
	}
	seededOpen.at[c.ID] = openAt{c.Open, time.Now()}
	return c.Open
}

type openAt struct {
	open bool
	time time.Time
}

var seededOpen struct {
	sync.Mutex
	at map[im.ConversationID]openAt
}

// dropUniqueKey removes what makes a send idempotent.
func dropUniqueKey(ctx context.Context, db *sqlx.DB) {
	_, _ = db.ExecContext(ctx, `ALTER TABLE messages DROP INDEX sender_key, ADD INDEX sender_plain (conversation_id, sender_id, client_msg_id)`)
}

// upToNewest returns where a platform stands in a conversation if what it has is
// all with an id up to the newest that it has anywhere.
func (s *store) upToNewest(ctx context.Context, user im.UserID, platform im.Platform, conv im.ConversationID) im.Seq {
	var seq im.Seq
	_ = s.db.GetContext(ctx, &seq, `SELECT COALESCE(MAX(seq), 0) FROM messages WHERE conversation_id = ? AND id <= (
		SELECT COALESCE(MAX(m.id), 0) FROM cursors d JOIN messages m ON m.conversation_id = d.conversation_id AND m.seq = d.delivered_seq
		WHERE d.user_id = ? AND d.platform = ?)`, int64(conv), int64(user), int64(platform))
	return seq
}

// laterStream keeps the responses of a backlog until it is let go.
type laterStream struct {
	grpc.ServerStreamingServer[logicv1.BacklogResponse]
	kept []*logicv1.BacklogResponse
}

func (l *laterStream) Send(r *logicv1.BacklogResponse) error {
	l.kept = append(l.kept, r)
	return nil
}

// backlogBeforeRegister reads the backlog first and makes the route then.
func (s *Server) backlogBeforeRegister(req *logicv1.BacklogRequest, stream logicv1.ConnectionService_BacklogServer, first *logicv1.BacklogResponse) error {
	ctx, conn := stream.Context(), req.GetConn()
	later := &laterStream{ServerStreamingServer: stream}
	out := &backlogSender{send: later.Send, resp: &logicv1.BacklogResponse{}}
	if err := s.store.streamBacklog(ctx, im.UserID(conn.GetUserId()), im.Platform(conn.GetPlatform()), nil, out); err != nil { //nolint:gosec // 1..3
		return err
	}
	out.resp.Done = true
	if err := out.flush(); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond)
	if err := s.register(ctx, req, first); err != nil {
		return err
	}
	for _, r := range append([]*logicv1.BacklogResponse{first}, later.kept...) {
		if err := stream.Send(r); err != nil {
			return err
		}
	}
	return nil
}

// tellOffline tells friends that users went, without a look at where they are.
func (s *Server) tellOffline(ctx context.Context, gone []departure) {
	users := make([]im.UserID, len(gone))
	for i, d := range gone {
		users[i] = d.user
	}
	friends, _ := s.store.friendsOf(ctx, users)
	for u, to := range friends {
		_, _ = s.pub.event(ctx, &pushv1.Event{UserIds: to, Body: &pushv1.Event_Presence{Presence: &pushv1.PresenceEvent{
			UserId: int64(u), Version: time.Now().UnixMilli(),
		}}})
	}
}
