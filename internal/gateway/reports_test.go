package gateway

import (
	"context"
	"testing"
	"time"

	"im-services/internal/im"
)

// One who names conversations that there are not takes nobody's place but his own.
func TestG14_MadeUpReceiptsCrowdOutNobody(t *testing.T) {
	cfg := testConfig()
	cfg.ReportInterval = time.Hour
	w := newWorld(t, cfg)
	liar, honest := w.connect(34), w.connect(35)
	const made = ownReceipts + 500
	for i := range made {
		liar.send(`{"msg_code":1005,"conversation_id":%d,"seq":1}`, i+1)
	}
	honest.send(`{"msg_code":1005,"conversation_id":7,"seq":3}`)
	r := w.srv.reports
	pending := func(user im.UserID) (n int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.receipts[receiver{user, im.PlatformWeb}])
	}
	w.eventually("the honest one's is kept", func() bool { return pending(35) == 1 })
	liar.chat(1, 36, 1, "after all of them")
	liar.wait(1005, 1)
	if n := pending(34); n != ownReceipts {
		t.Errorf("%d of his are kept", n)
	}
	if got := len(r.take(nil)); got != ownReceipts+1 || r.count != 0 {
		t.Errorf("%d to be told, %d counted after", got, r.count)
	}
}

// Ends of connections are news for friends: they wait for no receipt of another's,
// and for their own not long.
func TestG9_EndsDoNotWaitForReceipts(t *testing.T) {
	cfg := testConfig()
	cfg.ReportInterval = time.Hour // only ends have any told
	w := newWorld(t, cfg)
	w.store.mu.Lock()
	w.store.acknowledging = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	w.store.mu.Unlock()
	for user := range im.UserID(3) {
		for i := range ownReceipts {
			w.srv.reports.ack(receipt{user: 1000 + user, platform: im.PlatformWeb, conv: im.ConversationID(i + 1), seq: 1})
		}
	}
	c := w.connect(34)
	c.send(`{"msg_code":1005,"conversation_id":7,"seq":3}`)
	w.eventually("a receipt of his own", func() bool {
		w.srv.reports.mu.Lock()
		defer w.srv.reports.mu.Unlock()
		return len(w.srv.reports.receipts[receiver{34, im.PlatformWeb}]) == 1
	})
	began := time.Now()
	_ = c.ws.Close()
	w.eventually("the end is reported", func() bool {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		return len(w.store.gone) == 1
	})
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}
