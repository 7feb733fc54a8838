package logic

import (
	"context"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
	"im-services/internal/seeded"
)

func routeOf(gateway string, c *logicv1.Conn) route {
	return route{
		gateway:  im.GatewayID(gateway),
		conn:     im.ConnID(c.GetConnId()),
		platform: im.Platform(c.GetPlatform()), //nolint:gosec // 1..3
		sinceMS:  c.GetSinceMs(),
	}
}

func (s *Server) checkConn(gateway string, c *logicv1.Conn) error {
	if gateway == "" || !im.UserID(c.GetUserId()).Valid() || c.GetConnId() <= 0 || c.GetPlatform() < 1 || c.GetPlatform() > 3 {
		return im.E(im.KindInvalid, "connection_invalid", nil)
	}
	return nil
}

// Backlog implements logicv1.ConnectionServiceServer. The route is registered
// and pv read before MySQL is: whatever is committed later is pushed, and
// nothing falls between.
func (s *Server) Backlog(req *logicv1.BacklogRequest, stream logicv1.ConnectionService_BacklogServer) error {
	ctx := stream.Context()
	conn := req.GetConn()
	if err := s.checkConn(req.GetGatewayId(), conn); err != nil {
		return err
	}
	user := im.UserID(conn.GetUserId())
	first := &logicv1.BacklogResponse{SinceMs: conn.GetSinceMs()}
	if seeded.On(seeded.BacklogBeforeRegister) && req.GetRegister() {
		return s.backlogBeforeRegister(req, stream, first)
	}
	if req.GetRegister() {
		if err := s.register(ctx, req, first); err != nil {
			return err
		}
	} else if states, epoch, err := s.routes.read(ctx, []im.UserID{user}); err == nil {
		first.Pv, first.Epoch = int64(states[0].pv), epoch
	}
	if err := failpoint.Hit("logic.backlog_registered"); err != nil {
		return err
	}
	if err := stream.Send(first); err != nil {
		return err
	}
	positions := make(map[im.ConversationID]im.Seq, len(req.GetPositions()))
	for _, p := range req.GetPositions() {
		positions[im.ConversationID(p.GetConversationId())] = im.Seq(p.GetSeq())
	}
	out := &backlogSender{send: stream.Send, resp: &logicv1.BacklogResponse{}}
	if err := s.store.streamBacklog(ctx, user, im.Platform(conn.GetPlatform()), positions, out); err != nil { //nolint:gosec // 1..3
		return err
	}
	out.resp.Done = true
	return out.flush()
}

// register makes the connection's route and displaces the older one of its
// platform. Without the route store the connection works all the same: it is
// told that it has no route yet.
func (s *Server) register(ctx context.Context, req *logicv1.BacklogRequest, first *logicv1.BacklogResponse) error {
	if err := ctx.Err(); err != nil { // its client has gone already: it must not displace the next
		return im.E(im.KindUnavailable, "connection_displaced", err)
	}
	user, rt := im.UserID(req.GetConn().GetUserId()), routeOf(req.GetGatewayId(), req.GetConn())
	reg, err := s.routes.register(ctx, user, rt, s.cfg.displaces(), true)
	if ctx.Err() != nil {
		if reg.sinceMS != 0 {
			rt.sinceMS = reg.sinceMS
		}
		if !reg.again {
			s.unregister(ctx, user, rt)
		}
		return im.E(im.KindUnavailable, "connection_displaced", ctx.Err())
	}
	if err != nil {
		s.log.WarnContext(ctx, "connection has no route yet", "err", err)
		first.Unrouted = true
		return nil
	}
	if reg.lost {
		return im.E(im.KindForbidden, "connection_displaced", nil)
	}
	first.Pv, first.Epoch, first.SinceMs = int64(reg.pv), reg.epoch, reg.sinceMS
	for _, old := range reg.displaced {
		kick := &pushv1.Event{UserIds: []int64{int64(user)}, Body: &pushv1.Event_Kick{Kick: &pushv1.KickEvent{
			ConnId: int64(old.conn), Reason: "displaced", PeerIp: req.GetPeerIp(),
		}}}
		// Best effort: the old connection's gateway also learns it from two watermarks.
		if err := s.pub.eventTo(ctx, old.gateway, reg.epoch, kick); err != nil {
			s.log.WarnContext(ctx, "displaced connection not told yet", "err", err)
		}
	}
	s.presence.arrived(user)
	return nil
}

// unrouteTimeout bounds the removal of a route that nobody waits for any more.
const unrouteTimeout = 2 * time.Second

// unregister takes back the route of a connection that left while it was made:
// its end, by way of another replica, may have been here before it. Or its gateway
// has lost patience with this replica and registers it by way of another: that
// route is not this one's to remove.
func (s *Server) unregister(ctx context.Context, user im.UserID, rt route) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unrouteTimeout)
	defer cancel()
	if err := s.presence.leave(ctx, []departure{{user: user, route: rt, exact: true, delay: s.cfg.PresenceDebounce}}); err != nil {
		s.log.WarnContext(ctx, "route of a connection that left stays for now", "err", err) // its gateway reports the end again
	}
}

// Disconnect implements logicv1.ConnectionServiceServer. Who left is told to be away if
// he still is after the debounce time, or at once if his client was given up: then it
// has been silent for longer than that.
func (s *Server) Disconnect(ctx context.Context, req *logicv1.DisconnectRequest) (*logicv1.DisconnectResponse, error) {
	gone := make([]departure, len(req.GetConns()))
	for i, c := range req.GetConns() {
		gone[i] = departure{user: im.UserID(c.GetUserId()), route: routeOf(req.GetGatewayId(), c), delay: s.cfg.PresenceDebounce}
		if c.GetVanished() {
			gone[i].delay = 0
		}
	}
	if err := failpoint.Hit("logic.before_unroute"); err != nil {
		return nil, im.E(im.KindUnavailable, "routes_unavailable", err)
	}
	if seeded.On(seeded.UnconditionalRouteDel) {
		for _, d := range gone {
			_ = s.routes.rdb.Del(ctx, routesKey(d.user))
		}
	}
	if seeded.On(seeded.PresenceNoVersion) {
		s.tellOffline(ctx, gone)
	}
	if err := s.presence.leave(ctx, gone); err != nil {
		return nil, im.E(im.KindUnavailable, "routes_unavailable", err)
	}
	return &logicv1.DisconnectResponse{}, nil
}

// Watermark implements logicv1.ConnectionServiceServer.
func (s *Server) Watermark(ctx context.Context, req *logicv1.WatermarkRequest) (*logicv1.WatermarkResponse, error) {
	users := make([]im.UserID, len(req.GetConns()))
	for i, c := range req.GetConns() {
		users[i] = im.UserID(c.GetUserId())
	}
	if err := failpoint.Hit("logic.watermark"); err != nil {
		return nil, im.E(im.KindUnavailable, "routes_unavailable", err)
	}
	states, epoch, err := s.routes.read(ctx, users)
	if err != nil {
		return nil, im.E(im.KindUnavailable, "routes_unavailable", err)
	}
	resp := &logicv1.WatermarkResponse{Epoch: epoch, Marks: make([]*logicv1.Watermark, len(states))}
	for i, st := range states {
		own := routeOf(req.GetGatewayId(), req.GetConns()[i])
		mark := &logicv1.Watermark{Pv: int64(st.pv)}
		for _, rt := range st.routes {
			switch {
			case rt.gateway == own.gateway && rt.conn == own.conn:
				mark.Routed = true
			case s.cfg.displaces() && rt.platform == own.platform && rt.sinceMS > own.sinceMS:
				mark.Displaced = true
			}
		}
		mark.Displaced = mark.Displaced && !mark.Routed
		resp.Marks[i] = mark
	}
	return resp, nil
}

// Assert implements logicv1.ConnectionServiceServer: after the route store lost
// its contents, gateways say again what they hold. Of two connections that claim
// one place the one made later keeps it.
func (s *Server) Assert(ctx context.Context, req *logicv1.AssertRequest) (*logicv1.AssertResponse, error) {
	users := make([]im.UserID, len(req.GetConns()))
	rts := make([]route, len(req.GetConns()))
	for i, c := range req.GetConns() {
		if err := s.checkConn(req.GetGatewayId(), c); err != nil {
			return nil, err
		}
		users[i], rts[i] = im.UserID(c.GetUserId()), routeOf(req.GetGatewayId(), c)
	}
	regs, err := s.routes.registerAll(ctx, users, rts, s.cfg.displaces(), false)
	if err != nil {
		return nil, im.E(im.KindUnavailable, "routes_unavailable", err)
	}
	if err := failpoint.Hit("logic.assert_registered"); err != nil {
		return nil, im.E(im.KindUnavailable, "routes_unavailable", err)
	}
	resp := &logicv1.AssertResponse{Marks: make([]*logicv1.Watermark, len(regs))}
	for i, reg := range regs {
		user := users[i]
		resp.Epoch = reg.epoch
		resp.Marks[i] = &logicv1.Watermark{Pv: int64(reg.pv), Routed: !reg.lost, Displaced: reg.lost}
		for _, old := range reg.displaced {
			kick := &pushv1.Event{UserIds: []int64{int64(user)}, Body: &pushv1.Event_Kick{Kick: &pushv1.KickEvent{ConnId: int64(old.conn), Reason: "displaced"}}}
			if err := s.pub.eventTo(ctx, old.gateway, reg.epoch, kick); err != nil {
				s.log.WarnContext(ctx, "displaced connection not told yet", "err", err)
			}
		}
	}
	s.presence.soon()
	return resp, nil
}

// topicSweep is how often dead gateways' topics are looked for.
const topicSweep = 30 * time.Second
