package logic

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// The cursor forgets nothing that was delivered below its position and never
// claims what was not: checked against a plain set of seqs.
func TestCursor_CoversExactlyWhatWasDelivered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const last = 60
		var c cursor
		truth := map[im.Seq]bool{}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			first := im.Seq(rapid.IntRange(1, last).Draw(t, "first"))
			end := im.Seq(rapid.IntRange(int(first), last).Draw(t, "end"))
			c = c.withPage(first, end)
			for s := first; s <= end; s++ {
				truth[s] = true
			}
			if c.RangeHi != 0 && c.RangeLo > c.RangeHi {
				t.Fatalf("range %d..%d is inside out", c.RangeLo, c.RangeHi)
			}
			missing := map[im.Seq]bool{}
			prev := im.Seq(0)
			for _, gap := range c.missing(last) {
				if gap[0] < prev || gap[1] <= gap[0] {
					t.Fatalf("gaps out of order or empty: %v", c.missing(last))
				}
				prev = gap[1]
				for s := gap[0] + 1; s <= gap[1]; s++ {
					missing[s] = true
				}
			}
			for s := im.Seq(1); s <= last; s++ {
				if !missing[s] && !truth[s] {
					t.Fatalf("seq %d counts as delivered and never was; cursor %+v", s, c)
				}
			}
			for s := first; s <= end; s++ { // the newest page is always remembered, unless an even newer range stands
				if missing[s] && end >= c.RangeHi {
					t.Fatalf("seq %d was just delivered and would replay; cursor %+v", s, c)
				}
			}
		}
	})
}

func FuzzDecodeRanges(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		ranges, err := decodeRanges(b)
		if err != nil {
			return
		}
		for _, r := range ranges {
			if r.conv <= 0 || r.first <= 0 || r.last < r.first {
				t.Fatalf("accepted %+v", r)
			}
		}
	})
}

func TestEncodeRanges_RoundTrip(t *testing.T) {
	rows := []*messageRow{
		{ConversationID: 7, Seq: 3}, {ConversationID: 9, Seq: 1}, {ConversationID: 7, Seq: 4}, {ConversationID: 7, Seq: 5},
	}
	got, err := decodeRanges(encodeRanges(rows))
	if err != nil {
		t.Fatal(err)
	}
	want := []seqRange{{7, 3, 5}, {9, 1, 1}}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// TestAcknowledge_MembersOnlyAndNotPastTheEnd: several pages of receipts at once, of
// members, of who was one and of strangers, for what there is and what there is not.
func TestAcknowledge_MembersOnlyAndNotPastTheEnd(t *testing.T) {
	h := newHarness(t)
	conv, empty := h.befriend(2, 3), h.befriend(2, 4)
	group := im.ConversationID(h.group(10, 11, 12))
	for i := range int64(5) {
		h.mustSend(privateSend(2, 3, i+1, "private"))
	}
	must(t, h.kick(10, int64(group), 12)) // seq 2 tells of it, and is the last that he sees
	for i := range int64(4) {
		h.mustSend(groupSend(10, int64(group), i+1, "group"))
	}
	h.markDelivered(3, int64(conv), 4, 5)
	var acks []*logicv1.Ack
	add := func(user im.UserID, conv im.ConversationID, seq int64) {
		acks = append(acks, &logicv1.Ack{UserId: int64(user), Platform: int32(im.PlatformWeb), ConversationId: int64(conv), Seq: seq})
	}
	add(2, conv, 4)
	add(3, conv, 3) // up to the page that was fetched: that is absorbed
	add(2, empty, 7)
	add(10, group, 3)
	add(11, group, 1_000_000)
	add(12, group, 5)
	for stranger := im.UserID(1000); stranger < 1000+2*ackPage; stranger++ {
		add(stranger, group, 1)
	}
	add(4, conv, 1)
	_, err := h.Acknowledge(t.Context(), &logicv1.AcknowledgeRequest{Acks: acks})
	must(t, err)
	type place struct {
		User im.UserID         `db:"user_id"`
		Conv im.ConversationID `db:"conversation_id"`
		Seq  im.Seq            `db:"delivered_seq"`
	}
	var got []place
	must(t, h.store.db.Select(&got, `SELECT user_id, conversation_id, delivered_seq FROM cursors ORDER BY user_id`))
	last := h.stored(int64(group))
	want := []place{{2, conv, 4}, {3, conv, 5}, {10, group, 3}, {11, group, last[len(last)-1].Seq}, {12, group, 2}}
	if !slices.Equal(got, want) {
		t.Errorf("cursors %v, want %v", got, want)
	}
}
