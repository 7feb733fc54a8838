package gateway

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"unicode/utf8"

	"im-services/internal/wire"
)

// WebSocket opcodes (RFC 6455, 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

const (
	finBit          = 0x80
	rsvBits         = 0x70
	maskBit         = 0x80
	maxControl      = 125
	maxFragments    = 64
	headerRoom      = 10  // the longest header of a frame we send
	smallBuffer     = 400 // with it a conn fits 1 KiB, see TestConnFitsItsSizeClass
	largeBuffer     = 8 << 10
	maxFrameHeader  = 14
	closeNoStatus   = 1005
	closeMaxPrivate = 4999
)

// newFrame returns a buffer with room for the header, to append a payload to
// and then seal.
func newFrame(capacity int) []byte {
	return make([]byte, headerRoom, headerRoom+capacity)
}

// seal puts the header in front of the payload and returns the whole frame.
func seal(buf []byte, op byte) []byte {
	n := len(buf) - headerRoom
	var at int
	switch {
	case n <= maxControl:
		at = headerRoom - 2
		buf[at+1] = byte(n)
	case n < 1<<16:
		at = headerRoom - 4
		buf[at+1] = 126
		binary.BigEndian.PutUint16(buf[at+2:], uint16(n))
	default:
		at = 0
		buf[at+1] = 127
		binary.BigEndian.PutUint64(buf[at+2:], uint64(n))
	}
	buf[at] = finBit | op
	return buf[at:len(buf):len(buf)]
}

func closeFrame(code wire.CloseCode) []byte {
	buf := newFrame(2 + maxControl)
	buf = binary.BigEndian.AppendUint16(buf, uint16(code))
	buf = append(buf, code.Text()...)
	return seal(buf, opClose)
}

func pingFrame(mark uint64) []byte {
	if mark == 0 {
		return emptyPing
	}
	return seal(binary.BigEndian.AppendUint64(newFrame(8), mark), opPing)
}

var emptyPing = seal(newFrame(0), opPing)

// closeError is a fault of the client that ends the connection with a code.
type closeError struct {
	code wire.CloseCode
	why  string
}

func (e *closeError) Error() string { return e.why }

func protocolError(why string) error { return &closeError{wire.CloseProtocol, why} }

// frameHeader is the head of a client's frame.
type frameHeader struct {
	fin    bool
	op     byte
	length int
	mask   [4]byte
}

// frameReader reads a client's frames. Idle, it holds a small buffer; while a
// client sends much it borrows a large one.
type frameReader struct {
	src   io.Reader
	buf   []byte
	r, w  int // buf[r:w] is read but not used
	large *[largeBuffer]byte
	small [smallBuffer]byte
}

var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// settle changes the buffer between two frames: one that was filled to the brim
// calls for the large one, one hardly used for the small one.
func (f *frameReader) settle() {
	if f.r != f.w {
		return
	}
	switch {
	case f.buf == nil:
		f.buf = f.small[:]
	case f.large == nil && f.w == len(f.buf):
		f.large = largeBuffers.Get().(*[largeBuffer]byte) //nolint:forcetypeassert // the pool holds nothing else
		f.buf = f.large[:]
	case f.large != nil && f.w <= smallBuffer:
		f.release()
	}
	f.r, f.w = 0, 0
}

// release gives the large buffer back; what is left in it is lost.
func (f *frameReader) release() {
	if f.large != nil {
		largeBuffers.Put(f.large)
		f.large = nil
	}
	f.buf = f.small[:]
	f.r, f.w = 0, 0
}

// more reads at least one byte more into the buffer, making room first.
func (f *frameReader) more() error {
	switch {
	case f.r == f.w:
		f.r, f.w = 0, 0
	case f.w == len(f.buf):
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	}
	n, err := f.src.Read(f.buf[f.w:])
	f.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

func (f *frameReader) need(n int) error {
	for f.w-f.r < n {
		if err := f.more(); err != nil {
			return err
		}
	}
	return nil
}

// header reads and checks the next frame's header.
func (f *frameReader) header() (h frameHeader, err error) {
	f.settle()
	if err := f.need(2); err != nil {
		return h, err
	}
	b0, b1 := f.buf[f.r], f.buf[f.r+1]
	h.fin, h.op = b0&finBit != 0, b0&0x0f
	switch {
	case b0&rsvBits != 0:
		return h, protocolError("reserved bits")
	case b1&maskBit == 0:
		return h, protocolError("unmasked frame")
	case h.op > opBinary && h.op < opClose || h.op > opPong:
		return h, protocolError("reserved opcode")
	case h.op >= opClose && (!h.fin || b1&^maskBit > maxControl):
		return h, protocolError("bad control frame")
	}
	size := 2
	length := uint64(b1 &^ maskBit)
	switch length {
	case 126:
		if err := f.need(4); err != nil {
			return h, err
		}
		length, size = uint64(binary.BigEndian.Uint16(f.buf[f.r+2:])), 4
		if length < 126 {
			return h, protocolError("length not minimal")
		}
	case 127:
		if err := f.need(10); err != nil {
			return h, err
		}
		length, size = binary.BigEndian.Uint64(f.buf[f.r+2:]), 10
		if length < 1<<16 || length>>63 != 0 {
			return h, protocolError("bad length")
		}
	}
	if length > wire.MaxFrame {
		return h, &closeError{wire.CloseTooBig, "frame too big"}
	}
	if err := f.need(size + 4); err != nil {
		return h, err
	}
	copy(h.mask[:], f.buf[f.r+size:])
	f.r += size + 4
	h.length = int(length)
	return h, nil
}

// payload appends a frame's payload to dst, unmasked.
func (f *frameReader) payload(dst []byte, h frameHeader) ([]byte, error) {
	at := len(dst)
	n := copy(grow(&dst, h.length), f.buf[f.r:f.w])
	f.r += n
	if n < h.length {
		if _, err := io.ReadFull(f.src, dst[at+n:]); err != nil {
			return dst, err
		}
	}
	unmask(dst[at:], h.mask)
	return dst, nil
}

// inPlace returns a frame's payload, unmasked, inside the read buffer if it
// fits; false if it does not. It is good until the next read.
func (f *frameReader) inPlace(h frameHeader) ([]byte, bool, error) {
	if h.length > len(f.buf)-maxFrameHeader {
		return nil, false, nil
	}
	if err := f.need(h.length); err != nil {
		return nil, true, err
	}
	p := f.buf[f.r : f.r+h.length]
	f.r += h.length
	unmask(p, h.mask)
	return p, true, nil
}

// grow lengthens *b by n and returns the new part.
func grow(b *[]byte, n int) []byte {
	from := len(*b)
	if cap(*b)-from < n {
		bigger := make([]byte, from, max(2*cap(*b), from+n))
		copy(bigger, *b)
		*b = bigger
	}
	*b = (*b)[:from+n]
	return (*b)[from:]
}

func unmask(b []byte, mask [4]byte) {
	m := uint64(binary.LittleEndian.Uint32(mask[:]))
	m |= m << 32
	i := 0
	for ; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], binary.LittleEndian.Uint64(b[i:])^m)
	}
	for ; i < len(b); i++ {
		b[i] ^= mask[i&3]
	}
}

// checkClose judges the payload of a client's close frame and returns the code
// to answer with.
func checkClose(p []byte) (wire.CloseCode, error) {
	if len(p) == 0 {
		return wire.CloseNormal, nil
	}
	if len(p) == 1 {
		return 0, protocolError("close frame of one byte")
	}
	code := binary.BigEndian.Uint16(p)
	switch {
	case code < 1000, code > closeMaxPrivate, code == 1004, code == closeNoStatus, code == 1006,
		code > 1014 && code < 3000:
		return 0, protocolError("bad close code")
	}
	if !utf8.Valid(p[2:]) {
		return 0, &closeError{wire.CloseBadText, "close reason is not UTF-8"}
	}
	return wire.CloseCode(code), nil
}

// halfClose ends our direction of the connection, so that the peer reads all
// that was written and then the end.
func halfClose(nc net.Conn) {
	if h, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}
