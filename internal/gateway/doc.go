// Package gateway is the WebSocket edge: it holds the clients' sockets, hands
// their messages to logic and writes what is pushed to them. It has no database
// and keeps nothing that cannot be learnt again; what it tells a client it was
// told by logic.
//
// # One connection
//
// gorilla/websocket does the handshake and is then let go of: reading (frame.go)
// and writing (outbox.go) are ours, because an idle connection must cost one
// goroutine and a small buffer, because one encoded frame is shared by all its
// receivers, and because protocol errors, pongs and closes must go through the
// same queue as everything else.
//
//   - The reader goroutine lives as long as the connection. Its end is the one
//     place where a connection is cleaned up.
//   - The outbox is bounded in bytes. A few writers (writers.go) write to all
//     connections that have something queued, without waiting; a connection
//     whose socket does not take it all gets a goroutine until it has. When
//     pushes would overflow the outbox they are dropped, and the connection reads
//     them from the store as fast as its client takes them. A client that takes
//     nothing is closed as too slow (4008): the delivered cursor has not moved,
//     so nothing is missed after reconnecting.
//   - The delivery state (delivery.go) decides what of the pushes is written,
//     in order and once; when it cannot, it reads the backlog from logic (sync.go).
//
// # The process
//
//   - hub: user → connections, sharded.
//   - lanes: one stream to each logic replica carries all sends; one
//     conversation goes through one lane, in order. Sends meet on as few lanes as
//     keep up (spread.go).
//   - proofs: when connections may next be asked what they received.
//   - watermark: compares push counters with logic every few seconds, so that a
//     lost push, a forgotten route or a displaced socket is noticed.
//   - reports: receipts and closed connections, batched.
//   - identity: public keys and revocations, so that tokens are judged locally.
//
// # Locks
//
// In the order in which they may be taken: a hub shard, conn.mu, outbox.mu, and
// any of the leaves (lanes.mu, reports.mu, proofs.mu, marks.mu). No lock is held
// over a socket write or an RPC.
package gateway
