//go:build failpoint

package failpoint_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// point is one row of the table.
type point struct {
	name string
	// with is armed beside it, where the point is only reached after another fault.
	with string
	// do is what reaches the point, beside the messages and reconnects that
	// every cell has.
	do func(*table)
}

// points are all there are: TestEveryPointIsInTheTable holds them to the code.
var points = []point{
	{name: "logic.before_tx"},
	{name: "logic.after_lock"},
	{name: "logic.after_seq"},
	{name: "logic.before_commit"},
	{name: "logic.after_commit"},
	{name: "logic.before_ack"},
	{name: "logic.after_ack"},
	{name: "logic.before_lookup"},
	{name: "logic.after_lookup"},
	{name: "logic.before_publish"},
	{name: "logic.after_publish"},
	{name: "logic.before_outbox_delete"},
	{name: "logic.sweeper_claimed", with: "logic.after_ack=error*1"},
	{name: "logic.sweeper_published", with: "logic.after_ack=error*1"},
	{name: "logic.backlog_registered"},
	{name: "logic.backlog_chunk"},
	{name: "logic.before_unroute"},
	{name: "logic.watermark"},
	{name: "logic.assert_registered", do: (*table).flushRedis},
	{name: "logic.before_cursor"},
	{name: "logic.after_cursor"},
	{name: "logic.private_locked", do: (*table).changeFriends},
	{name: "logic.private_set", do: (*table).changeFriends},
	{name: "gateway.before_submit"},
	{name: "gateway.before_forward"},
	{name: "gateway.after_forward"},
	{name: "gateway.on_result"},
	{name: "gateway.before_ack"},
	{name: "gateway.before_apply"},
	{name: "gateway.sync_received"},
	{name: "gateway.sync_written"},
	{name: "gateway.before_receipts"},
	{name: "gateway.after_receipts"},
	{name: "gateway.after_gone"},
	{name: "friend.before_commit", do: (*table).changeFriends},
	{name: "friend.after_commit", do: (*table).changeFriends},
	{name: "friend.removed", do: (*table).changeFriends},
	{name: "friend.confirmed", do: (*table).changeFriends},
}

// A point without a row proves nothing, a row without a point neither.
func TestEveryPointIsInTheTable(t *testing.T) {
	hit := regexp.MustCompile(`failpoint\.Hit\("([^"]+)"\)`)
	inCode := map[string]int{}
	files, err := filepath.Glob("../*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range hit.FindAllStringSubmatch(string(text), -1) {
			inCode[m[1]]++
		}
	}
	inTable := map[string]bool{}
	for _, p := range points {
		inTable[p.name] = true
		if inCode[p.name] != 1 {
			t.Errorf("%s is %d times in the code", p.name, inCode[p.name])
		}
	}
	for name := range inCode {
		if !inTable[name] {
			t.Errorf("%s is not in the table", name)
		}
	}
}
