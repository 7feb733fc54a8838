// Package imclient is a client of the public protocol, and of nothing else: it
// shares no code with the servers and knows no secrets of theirs, so that what
// it sees is what a stranger's client would see. End-to-end tests, the delivery
// checker and the benchmark are built on it.
//
//   - API speaks HTTP: accounts, friends, groups, history, sync.
//   - Socket is one WebSocket connection, as raw as a test needs it.
//   - Client is what an app would use: it reconnects, sends again what was not
//     acknowledged, in order and under the same ids, and shows every message once.
//   - History writes what a Client did and saw as one JSON object per line, for
//     a checker to judge afterwards.
//
// # What a Client promises
//
// A message given to Post ends in exactly one way: acknowledged, refused, or
// still unknown when the Client is closed. Until then it is sent again, with the
// same client message id: after every reconnect; after an AckTimeout without an
// answer, and on the same connection every two after that; and after a temporary
// refusal when the server says, later after repeated ones, by four times at most.
// Messages that wait are sent in the order they were posted, and at most Window of
// them are on their way.
//
// A message of others is shown (OnMessage) once per Client, however often it is
// pushed; a Client remembers which seqs of a conversation it has shown or sent.
// A message that comes after a later one of its conversation is shown too, and
// marked Late: losing it would hide the server's fault.
package imclient
