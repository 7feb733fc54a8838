package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// logs prints the last lines of the named logs, or of all, each line with its
// process's name, and follows them if asked to.
func logs(ctx context.Context, s settings) error {
	files, err := filepath.Glob(s.state.LogFile("*"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		say("no logs yet: make up")
		return nil
	}
	var names []string
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".log"))
	}
	if len(s.names) > 0 {
		if names, err = expand(names, s.names); err != nil {
			return err
		}
	}
	width := 0
	for _, name := range names {
		width = max(width, len(name))
	}
	tails := make([]*tail, len(names))
	for i, name := range names {
		tails[i] = &tail{file: s.state.LogFile(name), prefix: name + strings.Repeat(" ", width-len(name)) + " | "}
		if err := tails[i].last(s.lines); err != nil {
			return err
		}
	}
	for s.follow {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
		for _, t := range tails {
			if err := t.more(); err != nil {
				return err
			}
		}
	}
	return nil
}

// tail reads one log from somewhere near its end.
type tail struct {
	file, prefix string
	offset       int64
	rest         []byte // an unfinished line
}

// window is how much of a log's end is searched for its last lines.
const window = 256 << 10

// last prints the last n lines.
func (t *tail) last(n int) error {
	f, err := os.Open(t.file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	t.offset = max(0, info.Size()-window)
	text, err := io.ReadAll(io.NewSectionReader(f, t.offset, window))
	if err != nil {
		return err
	}
	t.offset += int64(len(text))
	lines := bytes.SplitAfter(text, []byte("\n"))
	t.rest = bytes.Clone(lines[len(lines)-1])
	lines = lines[:len(lines)-1]
	return t.print(lines[max(0, len(lines)-n):])
}

// more prints what has been written since.
func (t *tail) more() error {
	f, err := os.Open(t.file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil {
		return err
	} else if info.Size() < t.offset { // it was cut
		t.offset, t.rest = 0, nil
	}
	text, err := io.ReadAll(io.NewSectionReader(f, t.offset, window))
	if err != nil {
		return err
	}
	t.offset += int64(len(text))
	lines := bytes.SplitAfter(append(t.rest, text...), []byte("\n"))
	t.rest = bytes.Clone(lines[len(lines)-1])
	return t.print(lines[:len(lines)-1])
}

func (t *tail) print(lines [][]byte) error {
	var b bytes.Buffer
	for _, line := range lines {
		b.WriteString(t.prefix)
		b.Write(line)
	}
	_, err := os.Stdout.Write(b.Bytes())
	return err
}
