package bus

import (
	"errors"
	"net"
	"testing"
	"time"
)

// A connection that owes no answer is not doubted: whoever gave up waiting was asleep
// himself, and the answers are read. Silence is then no sign of death.
func TestProducer_DoubtsNobodyWhoOwesNothing(t *testing.T) {
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }()
	c := &producerConn{
		conn:    &conn{nc: &timedConn{Conn: near}},
		queue:   make(chan *publishing, 1),
		pending: make(chan *publishing, 1),
	}
	c.doubt()
	if c.suspect.Load() {
		t.Error("it owes nothing")
	}
	c.pending <- &publishing{}
	c.doubt()
	if !c.suspect.Load() {
		t.Error("it owes an answer")
	}
}

// What was not written when a connection ended may be published elsewhere.
func TestProducer_WhatWasNotWrittenIsKnownNotToBe(t *testing.T) {
	c := &producerConn{queue: make(chan *publishing, 1), pending: make(chan *publishing, 1)}
	waiting, written := &publishing{done: make(chan error, 1)}, &publishing{done: make(chan error, 1)}
	c.queue <- waiting
	c.pending <- written
	c.fail()
	if err := <-waiting.done; !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if err := <-written.done; !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

// Nothing was sent, says ErrUnavailable; not so when an nsqd goes between two commands of
// one publish.
func TestProducer_HalfAPublishIsNotUnavailable(t *testing.T) {
	c := &producerConn{queue: make(chan *publishing), down: make(chan struct{})}
	p := &Producer{timeout: time.Second, links: []*producerLink{{live: c}}}
	go func() {
		req := <-c.queue
		req.done <- nil
		close(c.down)
	}()
	large := make([]byte, MaxBody)
	err := p.Publish(t.Context(), "t", large, large, large, large, large)
	if !errors.Is(err, ErrUnknown) || errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if err := p.Publish(t.Context(), "t", large); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}
