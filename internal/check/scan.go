package check

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"im-services/internal/imclient"
)

// scan looks into the logs of an own cluster's services for what must not stand
// there: messages, tokens, panics.
func (r *run) scan() error {
	if r.system.cluster == nil {
		return nil
	}
	needles := slices.Clone(forbiddenTexts)
	if !slices.Contains(r.o.Tags, "failpoint") { // there they may be wanted
		needles = append(needles, panicTexts...)
	}
	for _, a := range r.everybody() {
		needles = append(needles, needle{fmt.Sprintf("the token of user %d", a.user.ID), []byte(a.user.Token)})
	}
	for _, name := range r.system.processNames() {
		if err := r.scanLog(r.system.logFile(name), needles); err != nil {
			return err
		}
	}
	return nil
}

// needle is what must not stand in a file.
type needle struct {
	what string
	text []byte
}

var forbiddenTexts = []needle{
	{"a message", []byte(canaryMark)},
	{"a report of a data race", []byte("WARNING: DATA RACE")},
	{"the message of a fatal error", []byte("fatal error: ")},
}

// panicTexts are what the runtime writes before it ends a process, what net/http
// writes, and how whoever recovers logs it.
var panicTexts = []needle{
	{"the message of a panic", []byte("panic: ")},
	{"the message of a panic", []byte("panic serving ")},
	{"the message of a panic", []byte(" panic=")},
	{"the message of a panic", []byte(`"panic":`)},
}

// scanLog looks into a log and what the cluster has cut off it.
func (r *run) scanLog(path string, needles []needle) error {
	return errors.Join(r.scanFile(path+".1", needles), r.scanFile(path, needles))
}

func (r *run) scanFile(path string, needles []needle) error {
	f, err := os.Open(path) //nolint:gosec // a log of our own cluster
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	in := bufio.NewReaderSize(f, 1<<20)
	found := map[string]bool{}
	for {
		text, err := in.ReadSlice('\n')
		for _, n := range needles {
			if !found[n.what] && bytes.Contains(text, n.text) {
				found[n.what] = true
				r.log.add(&Event{Type: imclient.OK, Op: OpLeak, Text: filepath.Base(path), Reason: n.what})
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}
