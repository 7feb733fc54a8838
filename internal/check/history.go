package check

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// maxLine bounds a line of a history.
const maxLine = 4 << 20

// line is an Event as imclient.History writes it.
type line struct {
	T      int64  `json:"t"`
	Client int64  `json:"client"`
	Conn   int    `json:"conn"`
	Type   string `json:"type"`
	Op     string `json:"f"`
	Args   struct {
		ClientID int64  `json:"cid"`
		Channel  int    `json:"channel"`
		To       int64  `json:"to"`
		From     int64  `json:"from"`
		Text     string `json:"text"`
	} `json:"args"`
	Ret struct {
		ID           int64  `json:"id"`
		Conversation int64  `json:"conv"`
		Seq          int64  `json:"seq"`
		Code         int    `json:"code"`
		Reason       string `json:"reason"`
	} `json:"ret"`
}

// ReadHistory reads a history, JSON lines. A last line that is cut off, as by a
// crash of the writer, is left out; any other line that does not parse is an error.
func ReadHistory(r io.Reader) ([]Event, error) {
	var out []Event
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), maxLine)
	var bad error
	for n := 1; in.Scan(); n++ {
		if bad != nil {
			return nil, bad
		}
		if len(in.Bytes()) == 0 {
			continue
		}
		var l line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			bad = fmt.Errorf("history line %d: %w", n, err)
			continue
		}
		out = append(out, Event{
			T: time.Duration(l.T), Client: l.Client, Conn: l.Conn, Type: l.Type, Op: l.Op,
			ClientID: l.Args.ClientID, Channel: l.Args.Channel, To: l.Args.To, From: l.Args.From, Text: l.Args.Text,
			ID: l.Ret.ID, Conversation: l.Ret.Conversation, Seq: l.Ret.Seq, Code: l.Ret.Code, Reason: l.Ret.Reason,
		})
	}
	return out, in.Err()
}
