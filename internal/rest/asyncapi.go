package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"strings"

	"gopkg.in/yaml.v3"
)

// asyncDoc is what the page needs of the AsyncAPI document.
type asyncDoc struct {
	Info struct {
		Title, Version, Description string
	}
	Channels map[string]struct {
		Address, Description string
	}
	Operations yaml.Node
	Components struct {
		Messages map[string]asyncMessage
	}
}

type asyncMessage struct {
	Title, Summary, Description string
	Payload                     yaml.Node
	Examples                    []struct {
		Name    string
		Payload any
	}
}

// asyncRow is one frame on the page.
type asyncRow struct {
	Key, Direction, Title, Text string
	Members                     []asyncMember
	Examples                    []string
}

type asyncMember struct {
	Name, Type, Text string
	Required         bool
}

// asyncAPIPage renders the document of the socket for people.
func asyncAPIPage(src []byte) ([]byte, error) {
	var doc asyncDoc
	if err := yaml.Unmarshal(src, &doc); err != nil {
		return nil, fmt.Errorf("rest: asyncapi.yaml: %w", err)
	}
	var rows []asyncRow
	for _, op := range pairs(&doc.Operations) {
		var o struct {
			Action   string
			Messages []struct {
				Ref string `yaml:"$ref"`
			}
		}
		if err := op.value.Decode(&o); err != nil {
			return nil, fmt.Errorf("rest: asyncapi.yaml: %s: %w", op.key, err)
		}
		for _, m := range o.Messages {
			name := m.Ref[strings.LastIndex(m.Ref, "/")+1:]
			row, err := asyncRowOf(name, o.Action, doc.Components.Messages[name])
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
		}
	}
	text, err := docFiles.ReadFile("docs/asyncapi.html.tmpl")
	if err != nil {
		return nil, fmt.Errorf("rest: %w", err)
	}
	tmpl, err := template.New("asyncapi").Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("rest: asyncapi.html.tmpl: %w", err)
	}
	var buf bytes.Buffer
	if err := tmpl.Execute(&buf, map[string]any{"Doc": doc, "Rows": rows}); err != nil {
		return nil, fmt.Errorf("rest: asyncapi.html.tmpl: %w", err)
	}
	return buf.Bytes(), nil
}

func asyncRowOf(name, action string, m asyncMessage) (asyncRow, error) {
	row := asyncRow{Key: name, Direction: "server to client", Title: m.Title, Text: strings.TrimSpace(m.Summary + "\n" + m.Description)}
	if action == "receive" { // AsyncAPI speaks from the application's side
		row.Direction = "client to server"
	}
	required := map[string]bool{}
	for _, p := range pairs(&m.Payload) {
		if p.key == "required" {
			for _, n := range p.value.Content {
				required[n.Value] = true
			}
		}
	}
	for _, p := range pairs(&m.Payload) {
		if p.key != "properties" {
			continue
		}
		for _, prop := range pairs(p.value) {
			var s asyncProperty
			if err := prop.value.Decode(&s); err != nil {
				return row, fmt.Errorf("rest: asyncapi.yaml: %s.%s: %w", name, prop.key, err)
			}
			row.Members = append(row.Members, asyncMember{Name: prop.key, Type: s.kind(), Text: s.Description, Required: required[prop.key]})
		}
	}
	for _, e := range m.Examples {
		b, err := json.Marshal(e.Payload)
		if err != nil {
			return row, fmt.Errorf("rest: asyncapi.yaml: %s: %w", name, err)
		}
		row.Examples = append(row.Examples, string(b))
	}
	return row, nil
}

// asyncProperty is the schema of one member.
type asyncProperty struct {
	Type        any // a name or a list of names
	Description string
	Const       any
	Enum        []any
}

// kind says in words which values a member takes.
func (p asyncProperty) kind() string {
	names, ok := p.Type.([]any)
	switch {
	case p.Const != nil:
		return fmt.Sprintf("%v (always)", p.Const)
	case p.Enum != nil:
		names = p.Enum
	case !ok:
		names = []any{p.Type}
	}
	words := make([]string, len(names))
	for i, name := range names {
		words[i] = fmt.Sprint(name)
	}
	return strings.Join(words, " or ")
}

type pair struct {
	key   string
	value *yaml.Node
}

// pairs are the members of a YAML mapping in the order they are written.
func pairs(n *yaml.Node) []pair {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	out := make([]pair, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		out = append(out, pair{n.Content[i].Value, n.Content[i+1]})
	}
	return out
}
