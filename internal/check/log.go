package check

import (
	"iter"
	"sync"

	"im-services/internal/imclient"
)

// chunkSize is how many events are kept together.
const chunkSize = 64 << 10

// log collects events in memory and writes them to a file. Safe for concurrent
// use; events are kept and written in the order of their arrival, which for one
// client is the order in which it saw things.
//
// Every client waits for the log, so nothing in it may take long while events are
// added: they are kept in chunks, as one list of millions would be moved as a
// whole whenever it grows, and a goroutine writes them that nobody waits for, as a
// disk may stand still for seconds.
type log struct {
	file    *imclient.History
	written sync.WaitGroup

	mu     sync.Mutex
	more   sync.Cond         // of mu: there is something to write, or no more to come
	chunks [][]Event         // guarded by mu; all but the last are full, and what is in them stays as it is
	n      int               // guarded by mu; how many events there are
	closed bool              // guarded by mu
	convs  map[convKey]int64 // guarded by mu; the conversations of acknowledged messages
	texts  map[string]string // guarded by mu; each text once: a message is seen a dozen times
}

// newLog starts a log that writes to file; close ends it.
func newLog(file *imclient.History) *log {
	l := &log{file: file, convs: map[convKey]int64{}, texts: map[string]string{}}
	l.more.L = &l.mu
	l.written.Go(l.write)
	return l
}

func (l *log) add(e *Event) {
	if e.T == 0 {
		e.T = imclient.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Text != "" {
		if had, ok := l.texts[e.Text]; ok {
			e.Text = had
		} else {
			l.texts[e.Text] = e.Text
		}
	}
	if l.n%chunkSize == 0 {
		l.chunks = append(l.chunks, make([]Event, 0, chunkSize))
	}
	last := &l.chunks[len(l.chunks)-1]
	*last = append(*last, *e)
	l.n++
	if e.Op == imclient.OpSend && e.Type == imclient.OK {
		l.convs[keyOf(e.Channel, e.Client, e.To)] = e.Conversation
	}
	l.more.Signal()
}

// write writes what is added until the log is closed.
func (l *log) write() {
	for done := 0; ; {
		part := l.after(done)
		if len(part) == 0 {
			return
		}
		for i := range part {
			l.file.Add(&part[i])
		}
		done += len(part)
	}
}

// after waits for events after the first done ones and returns some of them; none
// if the log is closed and there are none.
func (l *log) after(done int) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.n == done && !l.closed {
		l.more.Wait()
	}
	if l.n == done {
		return nil
	}
	return l.chunks[done/chunkSize][done%chunkSize:]
}

// all goes through the events that there are by now.
func (l *log) all() iter.Seq[*Event] {
	l.mu.Lock()
	chunks := append([][]Event(nil), l.chunks...)
	l.mu.Unlock()
	return func(yield func(*Event) bool) {
		for _, chunk := range chunks {
			for i := range chunk {
				if !yield(&chunk[i]) {
					return
				}
			}
		}
	}
}

// close writes what is left and returns the first error. Nothing may be added any
// more.
func (l *log) close() error {
	l.mu.Lock()
	l.closed = true
	l.more.Signal()
	l.mu.Unlock()
	l.written.Wait()
	return l.file.Close()
}

// take returns all events as one list and forgets them. The log must be closed.
func (l *log) take() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Event, 0, l.n)
	for i, chunk := range l.chunks {
		out = append(out, chunk...)
		l.chunks[i] = nil // there is not memory enough for all of them twice
	}
	l.chunks, l.n, l.texts = nil, 0, nil
	return out
}
