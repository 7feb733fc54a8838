package gateway

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"im-services/internal/wire"
)

const heartbeatText = `{"msg_code":1004,"message":"ping"}`

// rawCase is what a client writes and how it must end: with a close code, or
// with an answer to a heartbeat sent after it.
type rawCase struct {
	name string
	in   []byte
	code int // 0: the connection lives
}

// head builds the first bytes of a frame without checking sense.
func head(b0, b1 byte, more ...byte) []byte { return append([]byte{b0, b1}, more...) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func closePayload(code uint16, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, code)) + reason
}

func rawCases() []rawCase {
	var cases []rawCase
	add := func(code int, in []byte, format string, args ...any) {
		cases = append(cases, rawCase{fmt.Sprintf(format, args...), in, code})
	}
	mask := []byte{1, 2, 3, 4}

	// Reserved bits: every combination on every opcode.
	for rsv := byte(0x10); rsv <= 0x70; rsv += 0x10 {
		for op := byte(0); op < 16; op++ {
			add(1002, clientFrame(finBit|rsv|op, ""), "rsv %x opcode %x", rsv>>4, op)
		}
	}
	// Reserved opcodes, final or not, with and without payload.
	for _, op := range []byte{3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf} {
		for _, fin := range []byte{0, finBit} {
			for _, p := range []string{"", "x"} {
				add(1002, clientFrame(fin|op, p), "reserved opcode %x fin %x payload %q", op, fin, p)
			}
		}
	}
	// Unmasked frames of every kind.
	for _, op := range []byte{opContinuation, opText, opBinary, opClose, opPing, opPong} {
		for n := range 3 {
			add(1002, append(head(finBit|op, byte(n)), make([]byte, n)...), "unmasked opcode %x length %d", op, n)
		}
	}
	// Control frames: too long, or in fragments.
	for _, op := range []byte{opClose, opPing, opPong} {
		add(1002, clientFrame(finBit|op, strings.Repeat("x", 126)), "control %x of 126", op)
		add(1002, clientFrame(finBit|op, strings.Repeat("x", 1000)), "control %x of 1000", op)
		add(1002, join(head(finBit|op, maskBit|127, 0, 0, 0, 0, 0, 0, 0, 1), mask, []byte{0}), "control %x with 64-bit length", op)
		add(1002, clientFrame(op, ""), "control %x not final", op)
		add(1002, clientFrame(op, "x"), "control %x not final with payload", op)
	}
	// Lengths.
	for _, n := range []uint16{0, 1, 125} {
		add(1002, join(head(finBit|opText, maskBit|126), binary.BigEndian.AppendUint16(nil, n), mask), "16-bit length %d", n)
	}
	for _, n := range []uint64{0, 125, 126, 1<<16 - 1, 1 << 63, 1<<63 + 5, 1<<64 - 1} {
		add(1002, join(head(finBit|opText, maskBit|127), binary.BigEndian.AppendUint64(nil, n), mask), "64-bit length %d", n)
	}
	for _, n := range []uint64{wire.MaxFrame + 1, 1 << 20, 1 << 32, 1<<63 - 1} {
		for _, op := range []byte{opText, opBinary} {
			add(1009, join(head(finBit|op, maskBit|127), binary.BigEndian.AppendUint64(nil, n), mask), "opcode %x length %d", op, n)
		}
	}
	add(1009, join(clientFrame(opText, strings.Repeat("x", 40<<10)), clientFrame(finBit|opContinuation, strings.Repeat("x", 30<<10))), "too big in two fragments")
	add(0, clientFrame(finBit|opText, strings.Repeat(" ", wire.MaxFrame-len(heartbeatText))+heartbeatText), "exactly the limit")
	add(0, join(clientFrame(opText, strings.Repeat(" ", 60<<10)), clientFrame(finBit|opContinuation, heartbeatText)), "large in two fragments")

	// Fragments.
	add(1002, clientFrame(finBit|opContinuation, ""), "continuation of nothing")
	add(1002, clientFrame(opContinuation, "x"), "continuation of nothing, not final")
	add(1002, join(clientFrame(finBit|opText, heartbeatText), clientFrame(finBit|opContinuation, "x")), "continuation after the end")
	for _, op := range []byte{opText, opBinary} {
		add(1002, join(clientFrame(opText, "{"), clientFrame(finBit|op, "}")), "opcode %x inside a message", op)
		add(1002, join(clientFrame(opText, ""), clientFrame(op, "")), "opcode %x inside a message, not final", op)
	}
	for _, op := range []byte{opPing, opPong} {
		add(0, join(clientFrame(opText, heartbeatText[:5]), clientFrame(finBit|op, "mid"), clientFrame(finBit|opContinuation, heartbeatText[5:])), "control %x between fragments", op)
	}
	for _, size := range []int{1, 2, 3, 7} {
		var b []byte
		for i := 0; i < len(heartbeatText); i += size {
			op, fin := byte(opContinuation), byte(0)
			if i == 0 {
				op = opText
			}
			if i+size >= len(heartbeatText) {
				fin = finBit
			}
			b = append(b, clientFrame(fin|op, heartbeatText[i:min(i+size, len(heartbeatText))])...)
		}
		add(0, b, "fragments of %d", size)
	}
	add(0, join(clientFrame(opText, ""), clientFrame(opContinuation, ""), clientFrame(finBit|opContinuation, heartbeatText)), "empty fragments first")
	add(1008, join(clientFrame(opText, ""), bytes.Repeat(clientFrame(opContinuation, ""), maxFragments)), "fragments without end")

	// Binary.
	add(1003, clientFrame(finBit|opBinary, ""), "binary, empty")
	add(1003, clientFrame(finBit|opBinary, heartbeatText), "binary")
	add(1003, clientFrame(opBinary, "x"), "binary, not final")

	// Text that is not UTF-8, whole and cut into fragments at every place.
	for _, bad := range []string{
		"\xff", "\xfe", "\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x80\x80\x80",
		"\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3", "\xe4\xbd", "\xf0\x9f\x99", "ok\xff", "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
	} {
		add(1007, clientFrame(finBit|opText, bad), "bad text %q", bad)
		for cut := 1; cut < min(len(bad), 4); cut++ {
			add(1007, join(clientFrame(opText, bad[:cut]), clientFrame(finBit|opContinuation, bad[cut:])), "bad text %q cut at %d", bad, cut)
		}
	}
	good := `{"msg_code":1004,"message":"κόσμε 你好 🙂"}`
	for cut := range len(good) {
		if !utf8.RuneStart(good[cut]) { // inside a rune
			add(0, join(clientFrame(opText, good[:cut]), clientFrame(finBit|opContinuation, good[cut:])), "rune cut at %d", cut)
		}
	}

	// Close frames.
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		add(int(code), clientFrame(finBit|opClose, closePayload(code, "")), "close %d", code)
		add(int(code), clientFrame(finBit|opClose, closePayload(code, "bye 你")), "close %d with reason", code)
	}
	for _, code := range []uint16{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		add(1002, clientFrame(finBit|opClose, closePayload(code, "")), "bad close %d", code)
		add(1002, clientFrame(finBit|opClose, closePayload(code, "bye")), "bad close %d with reason", code)
	}
	add(1000, clientFrame(finBit|opClose, ""), "close without a code")
	add(1002, clientFrame(finBit|opClose, "x"), "close of one byte")
	add(1007, clientFrame(finBit|opClose, closePayload(1000, "\xff")), "close reason not UTF-8")
	add(1000, clientFrame(finBit|opClose, closePayload(1000, strings.Repeat("x", 123))), "longest close")
	add(1000, join(clientFrame(finBit|opClose, closePayload(1000, "")), clientFrame(finBit|opText, heartbeatText)), "text after close")
	add(1000, join(clientFrame(opText, "half"), clientFrame(finBit|opClose, closePayload(1000, ""))), "close inside a message")

	// Control frames that are fine.
	for _, n := range []int{0, 1, 8, 124, 125} {
		add(0, clientFrame(finBit|opPong, strings.Repeat("p", n)), "unasked pong of %d", n)
		add(0, clientFrame(finBit|opPing, strings.Repeat("p", n)), "ping of %d", n)
	}
	for _, text := range []string{"", "x", "{}", heartbeatText, strings.Repeat("x", 125), strings.Repeat("x", 126), strings.Repeat("x", 127), strings.Repeat("x", 65535), strings.Repeat("x", 65536)} {
		add(0, clientFrame(finBit|opText, text), "text of %d", len(text))
	}
	return cases
}

// TestFrameConformance writes raw frames to a real socket: each case ends with
// the close code it must, or leaves the connection working.
func TestFrameConformance(t *testing.T) {
	cases := rawCases()
	if len(cases) < 300 {
		t.Errorf("only %d cases", len(cases))
	}
	cfg := testConfig()
	cfg.MultiDevice = multiAllow
	w := newWorld(t, cfg)
	for i, tt := range cases {
		r := w.raw(int64(i + 1))
		if _, err := r.Write(tt.in); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if tt.code == 0 {
			_, _ = r.Write(clientFrame(finBit|opPing, "alive?"))
			for alive := false; !alive; {
				op, p, err := r.next()
				if err != nil || op == opClose {
					t.Errorf("%s: the connection ended: opcode %x % x %v", tt.name, op, p, err)
					break
				}
				alive = op == opPong && string(p) == "alive?"
			}
		} else if got := r.closeCode(); got != tt.code {
			t.Errorf("%s: close code %d, want %d", tt.name, got, tt.code)
		}
		_ = r.Close()
	}
	w.eventually("all are forgotten", func() bool { return w.srv.Connections() == 0 })
}

// TestFrameConformanceByteByByte: how the bytes are cut by TCP changes nothing.
func TestFrameConformanceByteByByte(t *testing.T) {
	cfg := testConfig()
	w := newWorld(t, cfg)
	for i, tt := range rawCases() {
		if len(tt.in) > 200 || i%7 != 0 {
			continue
		}
		r := w.raw(int64(i + 1))
		for _, b := range join(tt.in, clientFrame(finBit|opPing, "alive?")) {
			if _, err := r.Write([]byte{b}); err != nil {
				break // closed on the way, as it may
			}
		}
		if tt.code != 0 {
			if got := r.closeCode(); got != tt.code {
				t.Errorf("%s: close code %d, want %d", tt.name, got, tt.code)
			}
		} else {
			for {
				op, p, err := r.next()
				if err != nil {
					t.Errorf("%s: %v", tt.name, err)
					break
				}
				if op == opPong && string(p) == "alive?" {
					break
				}
			}
		}
		_ = r.Close()
	}
}

func TestPingIsAnsweredInOrder(t *testing.T) {
	w := newWorld(t, testConfig())
	r := w.raw(34)
	var in []byte
	for i := range 100 {
		in = append(in, clientFrame(finBit|opPing, fmt.Sprint(i))...)
		in = append(in, clientFrame(finBit|opText, heartbeatText)...)
	}
	if _, err := r.Write(in); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		for _, want := range []string{fmt.Sprint(i), `{"msg_code":1004,"message":"pong"}`} {
			if _, p, err := r.next(); err != nil || string(p) != want {
				t.Fatalf("answer %d: %q, %v", i, p, err)
			}
		}
	}
}

func TestSeal(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 200000} {
		b := seal(append(newFrame(n), make([]byte, n)...), opText)
		var want []byte
		switch {
		case n <= 125:
			want = []byte{0x81, byte(n)}
		case n < 1<<16:
			want = binary.BigEndian.AppendUint16([]byte{0x81, 126}, uint16(n))
		default:
			want = binary.BigEndian.AppendUint64([]byte{0x81, 127}, uint64(n))
		}
		if !bytes.HasPrefix(b, want) || len(b) != len(want)+n {
			t.Errorf("%d: % x", n, b[:min(len(b), 10)])
		}
	}
	if b := closeFrame(wire.CloseRestart); len(b) > 127 || b[0] != 0x88 || binary.BigEndian.Uint16(b[2:]) != 1012 {
		t.Errorf("% x", b)
	}
}

// oneByte reads one byte at a time.
type oneByte struct{ io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.Reader.Read(p[:min(1, len(p))]) }

// FuzzFrameReader: no input makes the reader panic, allocate beyond a frame or
// depend on how the bytes arrive.
func FuzzFrameReader(f *testing.F) {
	for i, c := range rawCases() {
		if i%10 == 0 && len(c.in) < 1000 {
			f.Add(c.in)
		}
	}
	run := func(src io.Reader) (out []string) {
		fr := &frameReader{src: src}
		defer fr.release()
		for {
			h, err := fr.header()
			if err != nil {
				return append(out, err.Error())
			}
			p, ok, err := fr.inPlace(h)
			if !ok {
				p, err = fr.payload(nil, h)
			}
			if err != nil {
				return append(out, "cut")
			}
			out = append(out, fmt.Sprintf("%v %x %q", h.fin, h.op, p))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, bytewise := run(bytes.NewReader(b)), run(oneByte{bytes.NewReader(b)})
		if strings.Join(whole, "\n") != strings.Join(bytewise, "\n") {
			t.Fatalf("whole:\n%q\nbyte by byte:\n%q", whole, bytewise)
		}
	})
}

func TestUnmask(t *testing.T) {
	for n := range 70 {
		in := make([]byte, n)
		want := make([]byte, n)
		for i := range in {
			in[i] = byte(i * 7)
			want[i] = in[i] ^ [4]byte{9, 8, 7, 6}[i&3]
		}
		unmask(in, [4]byte{9, 8, 7, 6})
		if !bytes.Equal(in, want) {
			t.Fatalf("length %d", n)
		}
	}
}

// A large buffer is borrowed while much comes in and given back after.
func TestReadBufferGrowsAndShrinks(t *testing.T) {
	w := newWorld(t, testConfig())
	r := w.raw(34)
	var in []byte
	for range 200 {
		in = append(in, clientFrame(finBit|opText, heartbeatText)...)
	}
	if _, err := r.Write(in); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if _, _, err := r.next(); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		_, _ = r.Write(clientFrame(finBit|opText, heartbeatText))
		if _, _, err := r.next(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = r.Close() // so that the reader is done when we look
	var c *conn
	w.srv.hub.each(34, func(x *conn) { c = x })
	w.eventually("forgotten", func() bool { return w.srv.Connections() == 0 })
	if c != nil && c.in.large != nil {
		t.Error("the large buffer is kept")
	}
}
