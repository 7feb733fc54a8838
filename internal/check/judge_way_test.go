package check

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

func TestWay_OfAPush(t *testing.T) {
	cases := []struct {
		kind, target string
		any, first   bool // is on the way to any, and to who is at gateway-1
	}{
		{Kill, "logic-2", true, true},
		{KillAll, "logic", true, true},
		{Pause, "mysql", true, true},
		{FailOver, "mysql", true, true},
		{Flush, "redis", true, true},
		{Drop, "nsqd", true, true},
		{Strand, "logic", true, true},
		{Overload, "system", true, true},
		{KillFlush, "auth-1", true, true},
		{Partition, "logic-1>mysql", true, true},
		{Stall, "callers>logic-1", true, true},
		{KillAll, "gateway", true, true},
		{Kill, "gateway-1", true, true},
		{LoseFrom, "clients>gateway-1", true, true},
		{Chaos, "gateway-1>nsqd", true, true},
		{Kill, "gateway-2", true, false},
		{LoseFrom, "clients>gateway-2", true, false},
		{Chaos, "gateway-2>nsqd", true, false},
		{Kill, "auth-2", false, false},
		{Kill, "friend-1", false, false},
		{Partition, "auth-2>mysql", false, false},
		{Stall, "friend-1>mysql", false, false},
		{Delay, "callers>friend-2", false, false},
		{Pause, "nsqlookupd", false, false},
		{Down, "etcd", false, false},
		{Refuse, "logic-2>etcd", false, false},
		{Partition, "gateway-1>etcd", true, true},
		{Partition, "gateway-2>etcd", true, false},
		{DiskFull, "uploads", false, false},
		{DiskFull, "mysql", true, true},
	}
	for _, c := range cases {
		f := Window{Kind: c.kind, Target: c.target}
		require.Equal(t, c.any, delays(&f, 0), "%s %s", c.kind, c.target)
		require.Equal(t, c.first, delays(&f, 1), "%s %s", c.kind, c.target)
	}
}

// pushedAfter is a message to Bea whose push takes so long.
func (s *story) pushedAfter(n int64, took time.Duration) {
	s.invoke(ann, n, imclient.Private, bea)
	s.ack(ann, n, imclient.Private, bea, privateConv, n)
	s.wait(took - 10*time.Millisecond)
	s.see(imclient.OpPush, bea, 1, ann, n, imclient.Private, bea, privateConv, n)
}

// at has Bea connected to a gateway from now on.
func (s *story) at(gateway int) {
	s.add(Event{Client: bea, Conn: 1, Type: imclient.Info, Op: imclient.OpConnect})
	s.add(Event{Conn: gateway, Op: OpReached, Text: "http://there"})
	s.add(Event{Client: bea, Conn: 1, Type: imclient.Invoke, Op: imclient.OpConnect, Text: "http://there"})
	s.add(Event{Client: bea, Conn: 1, Op: imclient.OpConnect})
}

func TestJudge_PushesWhileThingsFail(t *testing.T) {
	cases := []struct {
		name  string
		tell  func(s *story)
		wrong int
		named string
	}{
		{"what fails is no excuse, as it is not on the way", func(s *story) {
			s.fault(1, Kill, "auth-2", 8*time.Second)
			s.wait(2 * time.Second)
			s.pushedAfter(1, 12*time.Second)
		}, 1, ""},
		{"nobody notices what is not on the way", func(s *story) {
			s.fault(1, Pause, "nsqlookupd", 8*time.Second)
			s.pushedAfter(1, 900*time.Millisecond)
		}, 0, "pushes come in time"},
		{"somebody does", func(s *story) {
			s.fault(1, Pause, "nsqlookupd", 8*time.Second)
			s.fault(2, Kill, "auth-1", 8*time.Second)
			s.pushedAfter(1, 1100*time.Millisecond)
		}, 1, ""},
		{"a bound is judged beside faults that are not on the way", func(s *story) {
			s.fault(1, Kill, "logic-1", 8*time.Second)
			s.fault(2, Refuse, "logic-2>etcd", 8*time.Second)
			s.pushedAfter(1, 2100*time.Millisecond)
		}, 1, "(of 1 that met a fault with a bound of its own 1 are judged by it)"},
		{"a gateway whose lease has run out finds what it was not told", func(s *story) {
			s.at(1)
			s.fault(1, Partition, "gateway-1>etcd", 20*time.Second)
			s.pushedAfter(1, 9*time.Second)
			s.pushedAfter(2, 10100*time.Millisecond)
		}, 1, "(of 2 that met a fault with a bound of its own 2 are judged by it)"},
		{"nobody knows which of two on the way it was", func(s *story) {
			s.fault(1, Kill, "logic-1", 8*time.Second)
			s.fault(2, Flush, "redis", 8*time.Second)
			s.pushedAfter(1, 5500*time.Millisecond)
		}, 0, "(of 1 that met a fault with a bound of its own 0 are judged by it)"},
		{"another gateway's fault is no excuse", func(s *story) {
			s.at(2)
			s.fault(1, LoseFrom, "clients>gateway-1", 8*time.Second)
			s.wait(2 * time.Second)
			s.pushedAfter(1, 12*time.Second)
		}, 1, ""},
		{"but its clients come to this one", func(s *story) {
			s.at(2)
			s.fault(1, Kill, "gateway-1", 8*time.Second)
			s.pushedAfter(1, 1100*time.Millisecond)
		}, 0, ""},
		{"one's own is", func(s *story) {
			s.at(1)
			s.fault(1, LoseFrom, "clients>gateway-1", 8*time.Second)
			s.wait(2 * time.Second)
			s.pushedAfter(1, 12*time.Second)
		}, 0, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := opening()
			c.tell(s)
			r := Judge(s.events, Bounds{}).Result("I7")
			require.Equal(t, c.wrong, r.Red, r.Sample)
			require.Contains(t, r.Name, c.named)
		})
	}
}

func TestJudge_AcknowledgementsOfRepeatedOnesCount(t *testing.T) {
	s := opening()
	s.private(ann, 1, 1)
	s.invoke(ann, 2, imclient.Private, bea)
	s.wait(5 * time.Second)
	s.add(Event{Client: ann, Conn: 1, Type: imclient.Invoke, Op: imclient.OpResend, ClientID: 2})
	s.ack(ann, 2, imclient.Private, bea, privateConv, 2)
	s.add(Event{Client: gil, Op: OpCrowd})
	s.invoke(gil, 1, imclient.Private, dan)
	s.wait(20 * time.Second)
	s.ack(gil, 1, imclient.Private, dan, privateConv+1, 1)
	v := Judge(s.events, Bounds{})
	require.Equal(t, 2, v.Figures.AckLatency.N)
	require.InDelta(t, 5*time.Second, v.Figures.AckLatency.Max, float64(time.Second))
	require.Equal(t, 1, v.Figures.CrowdAcks.N)
	require.Contains(t, v.Text(), "of the overload")
}
