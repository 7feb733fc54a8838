package check

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

func TestJudge_EverySendHasAnEnd(t *testing.T) {
	const enough = settledWithin + time.Second
	heal := func(s *story) { s.add(Event{Op: OpPhase, Text: PhaseHeal}) }
	read := func(s *story) { s.add(Event{Op: OpPhase, Text: PhaseRead}) }
	cases := []struct {
		name  string
		tell  func(s *story)
		wrong int
	}{
		{"none, though its client stood to the end", func(s *story) {
			s.invoke(ann, 1, imclient.Private, bea)
			heal(s)
			s.wait(enough)
			read(s)
			s.add(Event{Client: ann, Type: imclient.Info, Op: imclient.OpSend, ClientID: 1})
		}, 1},
		{"an acknowledgement at last", func(s *story) {
			s.invoke(ann, 1, imclient.Private, bea)
			heal(s)
			s.wait(enough)
			s.ack(ann, 1, imclient.Private, bea, privateConv, 1)
			read(s)
		}, 0},
		{"a refusal at last", func(s *story) {
			s.invoke(ann, 1, imclient.Private, bea)
			heal(s)
			s.wait(enough)
			s.add(Event{Client: ann, Conn: 1, Type: imclient.Fail, Op: imclient.OpSend, ClientID: 1, Code: 1003})
			read(s)
		}, 0},
		{"none, and its client connected too late to know", func(s *story) {
			s.invoke(ann, 1, imclient.Private, bea)
			s.add(Event{Client: ann, Conn: 1, Type: imclient.Info, Op: imclient.OpConnect})
			heal(s)
			s.wait(10 * time.Second)
			s.add(Event{Client: ann, Conn: 2, Op: imclient.OpConnect})
			s.wait(enough - 10*time.Second)
			read(s)
		}, 0},
		{"none, and nobody waited for long enough", func(s *story) {
			s.invoke(ann, 1, imclient.Private, bea)
			heal(s)
			s.wait(settledWithin - time.Second)
			read(s)
		}, 0},
		{"none, while things failed", func(s *story) {
			s.invoke(ann, 1, imclient.Private, bea)
			s.wait(enough)
			heal(s)
			read(s)
		}, 0},
		{"none, on a machine that stood still", func(s *story) {
			s.invoke(ann, 1, imclient.Private, bea)
			heal(s)
			s.wait(enough)
			read(s)
			s.stall(5 * time.Second)
		}, 0},
		{"none, of a crowd that sends nothing again", func(s *story) {
			s.add(Event{Client: ann, Op: OpCrowd})
			s.invoke(ann, 1, imclient.Private, bea)
			heal(s)
			s.wait(enough)
			read(s)
		}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := opening()
			c.tell(s)
			r := Judge(s.events, Bounds{}).Result("I2")
			require.Equal(t, c.wrong, r.Red, r.Sample)
		})
	}
	require.Greater(t, settlePatience, settledWithin, "nobody waits for what is judged")
}
