package check

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// dan logs in and ends his login; he knows nobody.
const dan = int64(4)

// endLogin is a login of user that ends: each gateway takes the token for the
// last time after taken, and closes the socket after closed.
func (s *story) endLogin(user int64, taken, closed time.Duration) {
	s.add(Event{Client: user, Conn: 1, Op: OpSocket})
	s.add(Event{Client: user, Conn: 2, Op: OpSocket})
	s.add(Event{Client: user, Type: imclient.Invoke, Op: OpEndLogin, Reason: byLogout})
	s.add(Event{Client: user, Op: OpEndLogin, Reason: byLogout})
	begin := s.now
	at := func(t time.Duration, e Event) {
		s.now = max(s.now, begin+t-10*time.Millisecond)
		s.add(e)
	}
	for _, way := range []struct {
		after time.Duration
		event Event
	}{
		{taken, Event{Client: user, Conn: 2, Op: OpToken, Text: "a request"}},
		{taken, Event{Client: user, Conn: 2, Type: imclient.Fail, Op: OpToken, Text: "a request", Code: 401}},
		{taken, Event{Client: user, Conn: 2, Type: imclient.Fail, Op: OpToken, Text: "a connection", Code: 401}},
		{closed, Event{Client: user, Conn: 1, Type: imclient.Info, Op: OpSocket, Code: 4001}},
		{closed, Event{Client: user, Conn: 2, Type: imclient.Info, Op: OpSocket, Code: 4001}},
	} {
		at(way.after, way.event)
	}
}

// fault adds a fault that lasts for a while.
func (s *story) fault(number int, kind, target string, length time.Duration) {
	s.add(Event{Conn: number, Type: imclient.Invoke, Op: OpFault, Text: target, Reason: kind})
	s.events = append(s.events, Event{T: s.now + length, Conn: number, Type: imclient.OK, Op: OpFault, Text: target, Reason: kind})
}

func TestJudge_EndedLogins(t *testing.T) {
	cases := []struct {
		name  string
		tell  func(s *story)
		wrong int
	}{
		{"in time", func(s *story) { s.endLogin(dan, 900*time.Millisecond, 1900*time.Millisecond) }, 0},
		{"the token is taken too long", func(s *story) { s.endLogin(dan, 1100*time.Millisecond, 1900*time.Millisecond) }, 1},
		{"the sockets stay open too long", func(s *story) { s.endLogin(dan, 900*time.Millisecond, 2100*time.Millisecond) }, 2},
		{"a socket was never closed", func(s *story) {
			s.endLogin(dan, 0, 9*time.Second)
			s.events[len(s.events)-1].Type = imclient.Fail
		}, 2},
		{"it is still open, and not too late yet", func(s *story) {
			s.endLogin(dan, 0, 1900*time.Millisecond)
			s.events[len(s.events)-1].Type = imclient.Fail
		}, 0},
		{"a socket that broke before", func(s *story) {
			s.add(Event{Client: dan, Conn: 1, Type: imclient.Info, Op: OpSocket})
			s.endLogin(dan, 0, time.Second)
		}, 0},
		{"an end that was not answered", func(s *story) {
			s.add(Event{Client: dan, Type: imclient.Invoke, Op: OpEndLogin})
			s.wait(time.Minute)
			s.add(Event{Client: dan, Conn: 1, Type: imclient.Fail, Op: OpSocket})
		}, 0},
		{"a token taken for a connection", func(s *story) {
			s.endLogin(dan, 0, time.Second)
			s.wait(time.Second)
			s.add(Event{Client: dan, Conn: 1, Op: OpToken, Text: "a connection"})
		}, 1},
		{"what does not concern auth is no excuse", func(s *story) {
			s.fault(1, Partition, "logic-1>mysql", 20*time.Second)
			s.fault(2, Down, "redis", 20*time.Second)
			s.fault(3, Down, "etcd", 20*time.Second)
			s.fault(4, Partition, "auth-1>redis", 20*time.Second)
			s.fault(5, Partition, "clients>gateway-3", 20*time.Second)
			s.endLogin(dan, 1100*time.Millisecond, 2100*time.Millisecond)
		}, 3},
		{"while the database is away, and three seconds more", func(s *story) {
			s.fault(1, Pause, "mysql", 10*time.Second)
			s.endLogin(dan, 13900*time.Millisecond, 14900*time.Millisecond)
		}, 0},
		{"longer than that", func(s *story) {
			s.fault(1, Pause, "mysql", 10*time.Second)
			s.endLogin(dan, 14100*time.Millisecond, 15100*time.Millisecond)
		}, 3},
		{"its own gateway failed, the other is judged", func(s *story) {
			s.fault(1, Partition, "clients>gateway-1", 10*time.Second)
			s.endLogin(dan, 0, 9*time.Second)
		}, 1},
		{"one fault after the other", func(s *story) {
			s.fault(1, Partition, "callers>auth-1", 4*time.Second)
			s.wait(5 * time.Second)
			s.fault(2, Kill, "auth-2", 2*time.Second)
			s.endLogin(dan, 0, 6900*time.Millisecond)
		}, 0},
		{"a fault that began too late", func(s *story) {
			s.endLogin(dan, 0, 2500*time.Millisecond)
			last := s.events[len(s.events)-1].T
			s.events = append(s.events, Event{T: last - 100*time.Millisecond, Conn: 1, Type: imclient.Invoke, Op: OpFault, Text: "auth-1", Reason: Kill})
		}, 2},
		{"Redis and NSQ cut off one after the other", func(s *story) {
			s.fault(1, Down, "redis", time.Second)
			s.wait(1200 * time.Millisecond)
			s.fault(2, Down, "nsqd", 9*time.Second)
			s.endLogin(dan, 0, 2500*time.Millisecond)
		}, 2},
		{"both at once", func(s *story) {
			s.fault(1, Down, "redis", 40*time.Second)
			s.fault(2, Partition, "gateway-1>nsqd", 40*time.Second)
			s.endLogin(dan, 29*time.Second, 29900*time.Millisecond)
		}, 0},
		{"both at once, for more than half a minute", func(s *story) {
			s.fault(1, Down, "redis+nsqd", 40*time.Second)
			s.endLogin(dan, 29*time.Second, 31*time.Second)
		}, 2},
		{"a machine that is too slow", func(s *story) {
			s.endLogin(dan, 11900*time.Millisecond, 12900*time.Millisecond)
			s.add(Event{Op: OpLag, Seq: int64(time.Second)})
		}, 0},
		{"even for that", func(s *story) {
			s.endLogin(dan, 12100*time.Millisecond, 13100*time.Millisecond)
			s.add(Event{Op: OpLag, Seq: int64(time.Second)})
		}, 3},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := &story{}
			c.tell(s)
			require.Equal(t, c.wrong, Judge(s.events, Bounds{}).Result("I14").Red)
		})
	}
}
