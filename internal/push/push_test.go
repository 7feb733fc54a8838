package push

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

func codec(t testing.TB, fill byte) *Codec {
	t.Helper()
	c, err := NewCodec(bytes.Repeat([]byte{fill}, MinKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func sample() *pushv1.Envelope {
	return &pushv1.Envelope{
		GatewayId:  "g1",
		Messages:   []*pushv1.Message{{ConversationId: 7, Seq: 3, Text: "hi\x00there"}},
		Deliveries: []*pushv1.Delivery{{UserIds: []int64{2, 3}, Pvs: []int64{9, 1}, Messages: []int32{0}}},
	}
}

func TestCodec_RoundTrip(t *testing.T) {
	c := codec(t, 1)
	body, err := c.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Unmarshal(body)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, sample()) {
		t.Fatalf("got %v", got)
	}
}

func TestCodec_RefusesWhatItDidNotSeal(t *testing.T) {
	body, err := codec(t, 1).Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := codec(t, 2).Unmarshal(body); !errors.Is(err, ErrForged) {
		t.Errorf("another key: %v", err)
	}
	for i := range body {
		bad := bytes.Clone(body)
		bad[i] ^= 1
		if _, err := codec(t, 1).Unmarshal(bad); !errors.Is(err, ErrForged) {
			t.Fatalf("flipped byte %d: %v", i, err)
		}
	}
	if _, err := codec(t, 1).Unmarshal(body[:macSize-1]); !errors.Is(err, ErrForged) {
		t.Errorf("short body: %v", err)
	}
}

func TestNewCodec_RefusesShortKey(t *testing.T) {
	if _, err := NewCodec(make([]byte, MinKeySize-1)); err == nil {
		t.Fatal("a short key was accepted")
	}
}

func TestTopic(t *testing.T) {
	topic := Topic("a1b2")
	if topic != "push.a1b2#ephemeral" {
		t.Fatal(topic)
	}
	if id, ok := GatewayOf(topic); !ok || id != im.GatewayID("a1b2") {
		t.Fatal(id, ok)
	}
	for _, bad := range []string{"", "push.#ephemeral", "push.a", "other.a#ephemeral"} {
		if _, ok := GatewayOf(bad); ok {
			t.Errorf("%q was taken for a push topic", bad)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	c := codec(f, 1)
	body, err := c.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := c.Unmarshal(b); err == nil && !bytes.Equal(b, body) {
			// Only a body with a fitting MAC may pass.
			if _, err := codec(t, 2).Unmarshal(b); err == nil {
				t.Fatal("accepted under two keys")
			}
		}
	})
}
