package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// asyncMessage is a frame in the document that the system serves.
type asyncMessage struct {
	Payload  map[string]any
	Examples []struct{ Payload map[string]any }
}

// documented fetches the document of the socket from the system under test.
func documented(t *testing.T) map[string]asyncMessage {
	t.Helper()
	var doc struct {
		Components struct{ Messages map[string]asyncMessage }
	}
	require.NoError(t, yaml.Unmarshal(readAll(t, nobody(t).raw(http.MethodGet, "/swagger/asyncapi.yaml", nil, "")), &doc))
	require.NotEmpty(t, doc.Components.Messages)
	return doc.Components.Messages
}

// describes checks a frame that came in against its schema, and that one of the
// examples shows it: each member of that is there, with a value of the same type.
func (m asyncMessage) describes(t *testing.T, f frame) {
	t.Helper()
	raw, err := json.Marshal(m.Payload)
	require.NoError(t, err)
	var schema openapi3.Schema
	require.NoError(t, json.Unmarshal(raw, &schema))
	require.NoError(t, schema.VisitJSON(map[string]any(f), openapi3.EnableJSONSchema2020()))
	for member := range f {
		require.Contains(t, schema.Properties, member, "a member that is not documented")
	}
	for _, e := range m.Examples {
		raw, err := json.Marshal(e.Payload)
		require.NoError(t, err)
		var shown map[string]any
		require.NoError(t, json.Unmarshal(raw, &shown))
		fits := true
		for member, v := range shown {
			was, ok := f[member]
			fits = fits && ok && reflect.TypeOf(was) == reflect.TypeOf(v)
		}
		if fits {
			return
		}
	}
	require.Fail(t, "no example is like the frame", "%v", f)
}

// Every example of a frame from clients, with ids that exist, has the effect the
// document tells; every frame to clients that the system was made to send is as
// the document shows it.
func TestAsyncAPI_ExamplesAgainstTheSystem(t *testing.T) {
	docs := documented(t)
	us := newUsers(t, 4)
	a, b, c, d := us[0], us[1], us[2], us[3]
	befriend(a, b)
	group := a.newGroup(b)
	old, sb, sc, sd := a.connect(), b.connect(), c.connect(), d.connect()
	sa := a.connect()
	seen := map[string]bool{}
	is := func(name string, f frame) frame {
		t.Helper()
		seen[name] = true
		require.Contains(t, docs, name)
		docs[name].describes(t, f)
		return f
	}
	is("displaced", old.expectCode(2004))

	// put sends an example with some members replaced, spelled as the example
	// spells them: numbers as numbers, text as text.
	put := func(s *socket, name string, i int, members map[string]any) {
		t.Helper()
		seen[name] = true
		require.Greater(t, len(docs[name].Examples), i, name)
		f := maps.Clone(docs[name].Examples[i].Payload)
		for k, v := range members {
			if was, ok := f[k]; ok {
				if _, text := was.(string); text {
					v = fmt.Sprint(v)
				}
				f[k] = v
			}
		}
		s.send(f)
	}
	examples := func(name string) int { return len(docs[name].Examples) }

	put(sa, "heartbeat", 0, nil)
	is("pong", sa.expectCode(1004))

	require.Equal(t, 2, examples("chat"))
	key := nextKey()
	put(sa, "chat", 0, map[string]any{"msg_client_id": key, "form_id": a.ID, "to_id": b.ID})
	ack := is("ack", sa.expectCode(1005))
	require.EqualValues(t, key, ack["msg_client_id"])
	got := is("message", sb.expectText("hello"))
	require.Equal(t, num(ack["msg_id"]), num(got["msg_id"]))
	put(sa, "chat", 1, map[string]any{"msg_client_id": nextKey(), "to_id": group})
	is("ack", sa.expectCode(1005))
	is("message", sb.expectText("hello all"))
	is("message", sa.expectText("hello all"))

	put(sa, "chat", 0, map[string]any{"msg_client_id": nextKey(), "form_id": a.ID, "to_id": c.ID})
	is("notAllowed", sa.expectCode(1003))
	put(sa, "chat", 0, map[string]any{"msg_client_id": nextKey(), "form_id": b.ID, "to_id": b.ID})
	is("error", sa.expectCode(500))

	put(sa, "presenceQuestion", 0, map[string]any{"to_id": b.ID})
	is("presence", sa.expect("the answer", func(f frame) bool { return f.code() == 2001 && num(f["id"]) == b.ID }))

	require.Equal(t, 2, examples("answerFriend"))
	for i, asks := range []struct {
		s  *socket
		to int64
	}{{sc, a.ID}, {sd, a.ID}} {
		put(asks.s, "requestFriend", 0, map[string]any{"to_id": asks.to})
		id := num(is("ack", asks.s.expectCode(1005))["msg_id"])
		require.Equal(t, id, num(is("friend", sa.expectCode(1000))["id"]))
		put(sa, "answerFriend", i, map[string]any{"id": id})
		is("ack", sa.expectCode(1005))
		is("friend", asks.s.expectCode(1001+int64(i)))
	}

	require.Equal(t, 2, examples("receipt"))
	put(sb, "receipt", 0, map[string]any{"msg_id": num(got["msg_id"])})
	put(sb, "receipt", 1, map[string]any{"conversation_id": num(got["conversation_id"]), "seq": num(got["seq"])})
	put(sb, "heartbeat", 0, nil)
	is("pong", sb.expectCode(1004))
	sb.never("an answer to a receipt", func(f frame) bool { return f.code() == 500 || f.code() == 1005 })

	a.newGroup(b)
	is("session", sb.expect("the second group", func(f frame) bool {
		row, _ := f["sessions"].(map[string]any)
		return f.code() == 2003 && num(row["group_id"]) != group
	}))
	a.post("/messages/recall", "msg_id", num(got["msg_id"]), "channel_type", 1, "to_id", b.ID).ok()
	is("recall", sb.expectCode(2005))
	a.post("/messages/video", "to_id", b.ID).ok()
	is("call", sb.expectCode(600))

	// More than a test should send must be missed for 2006.
	seen["syncNeeded"] = true
	require.ElementsMatch(t, slices.Collect(maps.Keys(docs)), slices.Collect(maps.Keys(seen)), "every frame of the document was tried")
}
