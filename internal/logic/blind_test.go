package logic

import (
	"fmt"
	"testing"
	"time"

	"im-services/internal/im"
	"im-services/internal/testkit"
)

// What was published while Redis was away has no counter, so a gateway that
// missed it could not tell. Once Redis is back, with all that it knew, the
// counters have moved; and the next message does not claim to follow.
func TestG8_WhatWasPublishedBlindlyIsCountedLater(t *testing.T) {
	h := newHarness(t)
	const a, b im.UserID = 34, 35
	h.befriend(a, b)
	direct := newRoutes(h.routes.rdb)
	proxy := testkit.Proxy(t, h.redis)
	h.redis = proxy.Addr
	h.replica()
	h.connect(b, 1, 1)
	h.mustSend(privateSend(a, b, 1, "counted"))
	eventually(t, 2*time.Second, "the first push", func() bool { return len(h.bus.pushedTo(b)) == 1 })

	proxy.Cut()
	h.mustSend(privateSend(a, b, 2, "blind"))
	eventually(t, 5*time.Second, "the blind push", func() bool { return len(h.bus.pushedTo(b)) == 2 })
	proxy.Heal()
	eventually(t, 10*time.Second, "the counters move", func() bool {
		st, _, err := direct.read(t.Context(), []im.UserID{b})
		return err == nil && st[0].pv == 2
	})
	h.mustSend(privateSend(a, b, 3, "after"))
	eventually(t, 5*time.Second, "the third push", func() bool { return len(h.bus.pushedTo(b)) == 3 })
	if m := h.bus.pushedTo(b)[2]; m.GetContiguous() {
		t.Error("a message claims to follow one that was not counted")
	}
}

// Where nobody can be told blindly, because there are too many gateways or none is
// known, the outbox keeps the message until Redis is back.
func TestG8_WhatCannotBeToldBlindlyStaysInTheOutbox(t *testing.T) {
	for name, others := range map[string]int{"too many gateways": blindGateways, "no gateway known": -1} {
		t.Run(name, func(t *testing.T) {
			gateways := fixedGateways{}
			for i := range others + 1 {
				gateways = append(gateways, im.GatewayID(fmt.Sprint("gw", i+1)))
			}
			h := newHarnessWith(t, gateways)
			const a, b im.UserID = 34, 35
			h.befriend(a, b)
			proxy := testkit.Proxy(t, h.redis)
			h.redis = proxy.Addr
			h.replica()
			h.connect(b, 1, 1)
			proxy.Cut()
			h.mustSend(privateSend(a, b, 1, "x"))
			time.Sleep(2 * outboxFlush)
			if n := len(h.bus.pushedTo(b)); n != 0 {
				t.Fatalf("%d pushes", n)
			}
			proxy.Heal()
			eventually(t, outboxAge+2*outboxSweep, "the push", func() bool { return len(h.bus.pushedTo(b)) == 1 })
		})
	}
}

func TestBlindUsersAreBounded(t *testing.T) {
	var b blindUsers
	for u := range im.UserID(maxBlind + 10) {
		b.owe([]im.UserID{u + 1})
	}
	if !b.all || b.users != nil {
		t.Fatal("everybody should count now")
	}
}
