package rest

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"im-services/internal/wire"
)

type asyncTestDoc struct {
	Asyncapi string
	Channels map[string]struct {
		Messages map[string]map[string]string
	}
	Operations map[string]struct {
		Action   string
		Messages []map[string]string
	}
	Components struct {
		Messages map[string]struct {
			Payload  map[string]any
			Examples []struct{ Payload map[string]any }
		}
	}
}

func loadAsync(t *testing.T) asyncTestDoc {
	t.Helper()
	src, err := docFiles.ReadFile("docs/asyncapi.yaml")
	require.NoError(t, err)
	var doc asyncTestDoc
	require.NoError(t, yaml.Unmarshal(src, &doc))
	require.Equal(t, "3.0.0", doc.Asyncapi)
	return doc
}

func TestAsyncAPI_ExamplesFitTheirSchemas(t *testing.T) {
	for name, m := range loadAsync(t).Components.Messages {
		raw, err := json.Marshal(m.Payload)
		require.NoError(t, err)
		var schema openapi3.Schema
		require.NoError(t, json.Unmarshal(raw, &schema), name)
		require.NotEmpty(t, m.Examples, name)
		for _, e := range m.Examples {
			raw, err := json.Marshal(e.Payload)
			require.NoError(t, err)
			var v any
			require.NoError(t, json.Unmarshal(raw, &v))
			require.NoError(t, schema.VisitJSON(v, openapi3.EnableJSONSchema2020()), name)
			if obj, ok := v.(map[string]any); ok {
				for member := range obj {
					require.Contains(t, schema.Properties, member, "%s: an undocumented member", name)
				}
			}
		}
	}
}

// A comma in a description without quotes ends it, and the rest becomes a member
// without a value.
func TestDocs_NothingIsCutOff(t *testing.T) {
	var walk func(file string, n *yaml.Node)
	walk = func(file string, n *yaml.Node) {
		if n.Kind == yaml.ScalarNode {
			require.NotEqual(t, "!!null", n.Tag, "%s, line %d", file, n.Line)
		}
		for _, c := range n.Content {
			walk(file, c)
		}
	}
	for _, file := range []string{"docs/asyncapi.yaml", "docs/openapi.yaml"} {
		src, err := docFiles.ReadFile(file)
		require.NoError(t, err)
		var doc yaml.Node
		require.NoError(t, yaml.Unmarshal(src, &doc))
		walk(file, &doc)
	}
}

func TestAsyncAPIPage_SaysWhatMembersTake(t *testing.T) {
	src, err := docFiles.ReadFile("docs/asyncapi.yaml")
	require.NoError(t, err)
	page, err := asyncAPIPage(src)
	require.NoError(t, err)
	for _, want := range []string{"1001 or 1002", "1004 (always)", "integer or string", "the other user, or the group"} {
		require.Contains(t, string(page), want)
	}
	require.NotContains(t, string(page), "nil")
}

// Every frame is in the document, in the right direction, and what it tells
// people to send is what the decoder takes.
func TestAsyncAPI_IsTheProtocol(t *testing.T) {
	doc := loadAsync(t)
	codes := map[string][]wire.Code{}
	for _, op := range doc.Operations {
		for _, ref := range op.Messages {
			name := ref["$ref"][strings.LastIndexByte(ref["$ref"], '/')+1:]
			m, ok := doc.Components.Messages[name]
			require.True(t, ok, name)
			require.Contains(t, doc.Channels["connect"].Messages, name)
			for _, e := range m.Examples {
				raw, err := json.Marshal(e.Payload)
				require.NoError(t, err)
				if op.Action == "receive" {
					_, err = wire.Decode(raw)
					require.NoError(t, err, "%s: %s", name, raw)
				}
			}
			props, _ := m.Payload["properties"].(map[string]any)
			code, _ := props["msg_code"].(map[string]any)
			if c, ok := code["const"].(int); ok {
				codes[op.Action] = append(codes[op.Action], wire.Code(c))
			}
			list, _ := code["enum"].([]any)
			for _, c := range list {
				n, _ := c.(int)
				codes[op.Action] = append(codes[op.Action], wire.Code(n))
			}
		}
	}
	slices.Sort(codes["receive"])
	slices.Sort(codes["send"])
	require.Equal(t, []wire.Code{
		wire.CodeChat, wire.CodeFriendRequest, wire.CodeFriendAccepted, wire.CodeFriendRefused, wire.CodeHeartbeat, wire.CodeAck, wire.CodePresence,
	}, codes["receive"])
	require.Equal(t, []wire.Code{
		wire.CodeChat, wire.CodeError, wire.CodeCall, wire.CodeFriendRequest, wire.CodeFriendAccepted, wire.CodeFriendRefused, wire.CodeNotAllowed,
		wire.CodeHeartbeat, wire.CodeAck, wire.CodeOffline, wire.CodeOnline, wire.CodeSession, wire.CodeDisplaced, wire.CodeRecall, wire.CodeSyncNeeded,
	}, codes["send"])
}
