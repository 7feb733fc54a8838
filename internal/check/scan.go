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
	needles := map[string][]byte{
		"a message":                    []byte(canaryMark),
		"a report of a data race":      []byte("WARNING: DATA RACE"),
		"the message of a fatal error": []byte("fatal error: "),
	}
	if !slices.Contains(r.o.Tags, "failpoint") { // there they may be wanted
		needles["the message of a panic"] = []byte("panic: ")
	}
	for _, a := range r.everybody() {
		needles[fmt.Sprintf("the token of user %d", a.user.ID)] = []byte(a.user.Token)
	}
	for _, name := range r.system.processNames() {
		if err := r.scanFile(r.system.logFile(name), needles); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) scanFile(path string, needles map[string][]byte) error {
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
		for what, needle := range needles {
			if !found[what] && bytes.Contains(text, needle) {
				found[what] = true
				r.log.add(&Event{Type: imclient.OK, Op: OpLeak, Text: filepath.Base(path), Reason: what})
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
