package bench

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/bench/crowd"
	"im-services/internal/bench/hist"
)

func TestLatencies_AreOfWhatWasDueInTheWindow(t *testing.T) {
	s := &server{}
	stalled := false
	s.reply = func(n int64) string {
		if n == 100 && !stalled { // in the middle of the window, until long after it
			stalled = true
			time.Sleep(500 * time.Millisecond)
		}
		return ""
	}
	o := short()
	o.Rate = 500
	res := runOn(t, s, "open", o)
	require.True(t, res.OK(), res.String())
	inTime := uint64(res.AckedPerSecond*res.Seconds + 0.5)
	for what, l := range map[string]*hist.Summary{"ack": res.Ack, "deliver": res.Deliver} {
		require.Greater(t, l.Count, inTime+20, "%s: %s", what, res)
		require.Greater(t, l.P90, 300.0, "%s: %s", what, res)
	}
}

func TestPace_WhatWasDueInTheWindowIsSentAfterItsEnd(t *testing.T) {
	r := newRun(t.Context(), &Target{})
	c := r.add(crowd.User{ID: 1}, "")
	f, err := r.newFlow(flowSpec{from: c, to: 2, kind: kindPrivate})
	require.NoError(t, err)
	w := &window{to: r.now() + 100*time.Millisecond}
	r.window.Store(w)
	stop := make(chan struct{})
	close(stop) // as if it came while the pacer was held up
	require.NoError(t, r.pace([]*flow{f}, 1000, 1, stop))
	require.InDelta(t, 100, w.late.Summary().Count, 50)
	require.Greater(t, r.now(), 90*time.Millisecond)
}

// openFlow is a run with one flow whose sends have no answer yet.
func openFlow(t *testing.T, sends int) (*run, *flow) {
	t.Helper()
	r := newRun(t.Context(), &Target{})
	f, err := r.newFlow(flowSpec{from: r.add(crowd.User{ID: 1}, ""), to: 2, kind: kindPrivate})
	require.NoError(t, err)
	for n := range sends {
		f.reserveLocked(n)
	}
	f.sent = sends
	return r, f
}

func TestChecks_ASendWithoutAnAnswerIsNotClean(t *testing.T) {
	r, f := openFlow(t, 2)
	f.at(0).seq.Store(1)
	c := r.account()
	require.Equal(t, Checks{Sent: 2, Acked: 1, Unsettled: 1}, c)
	require.False(t, c.OK())
	f.at(1).seq.Store(seqRefused)
	c = r.account()
	require.True(t, c.OK(), c.String())
}

func TestDrain_GoesOnWhileAnswersCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := openFlow(t, 4)
		go func() {
			for n := range 4 {
				time.Sleep(unansweredLimit - time.Second)
				f.at(n).seq.Store(int32(n + 1))
			}
		}()
		r.drain()
		require.Zero(t, r.outstanding())
	})
	synctest.Test(t, func(t *testing.T) {
		r, _ := openFlow(t, 1)
		r.drain()
		require.Equal(t, 1, r.outstanding())
		require.InDelta(t, unansweredLimit.Seconds(), r.now().Seconds(), 1)
	})
}
