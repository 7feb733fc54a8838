package logic

import (
	"testing"

	"pgregory.net/rapid"

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
