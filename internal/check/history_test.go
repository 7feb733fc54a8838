package check

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

func write(events []Event) []byte {
	var b bytes.Buffer
	h := imclient.NewHistory(&b)
	for i := range events {
		h.Add(&events[i])
	}
	_ = h.Close()
	return b.Bytes()
}

func TestHistory_ReadsWhatWasWritten(t *testing.T) {
	want := correct().events
	got, err := ReadHistory(bytes.NewReader(write(want)))
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestHistory_CutOffLineIsLeftOut(t *testing.T) {
	text := write(correct().events)
	got, err := ReadHistory(bytes.NewReader(text[:len(text)-10]))
	require.NoError(t, err)
	require.Len(t, got, len(correct().events)-1)
	_, err = ReadHistory(strings.NewReader("{\n{}\n"))
	require.Error(t, err, "a broken line in the middle")
}

// Whatever stands in a file: reading and judging it ends, without a panic, and a
// history that parses is written and read again as the same.
func FuzzHistory(f *testing.F) {
	events := correct().events
	for i := 0; i < len(events); i += 8 { // short ones: long inputs are slow to work on
		f.Add(write(events[i:min(i+3, len(events))]))
	}
	f.Add([]byte(`{"t":1,"client":1,"conn":1,"type":"ok","f":"push","args":{},"ret":{"conv":1,"seq":-9223372036854775808}}`))
	f.Add([]byte(`{"type":"ok","f":"fault"}` + "\n" + `{"type":"ok","f":"leave"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		events, err := ReadHistory(bytes.NewReader(text))
		if err != nil {
			return
		}
		again, err := ReadHistory(bytes.NewReader(write(events)))
		if err != nil || len(again) != len(events) {
			t.Fatalf("%d events became %d, %v", len(events), len(again), err)
		}
		v := Judge(events, Bounds{})
		_, _ = v.Text(), v.Page()
	})
}

// FuzzJudge takes a correct history and drops, repeats and moves events as the
// input says: judging must end, and must not depend on anything but the events.
func FuzzJudge(f *testing.F) {
	f.Add([]byte{0, 1, 2})
	f.Fuzz(func(t *testing.T, moves []byte) {
		events := correct().events
		for i := 0; i+1 < len(moves) && i < 64; i += 2 {
			at := int(moves[i]) % len(events)
			switch moves[i+1] % 3 {
			case 0:
				events = drop(events, at)
			case 1:
				events = append(events, events[at])
			default:
				to := int(moves[i+1]) % len(events)
				events[at], events[to] = events[to], events[at]
			}
			if len(events) == 0 {
				return
			}
		}
		a, b := Judge(events, Bounds{}), Judge(events, Bounds{})
		for i := range a.Results {
			if a.Results[i].Red != b.Results[i].Red {
				t.Fatalf("%s: %d and %d", a.Results[i].ID, a.Results[i].Red, b.Results[i].Red)
			}
		}
	})
}
