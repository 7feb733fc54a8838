// Package im is the vocabulary of the system: the values every process talks
// about and the errors they exchange. It imports nothing but the standard
// library and does no I/O.
//
// Glossary:
//
//   - user: somebody who can log in, or a bot. Named by a UserID; UID is the
//     same name spelled as a UUID, for clients that want one.
//   - conversation: a private thread of two users or a group. Its messages are
//     numbered 1..n without gaps by seq.
//   - seq: a message's place in its conversation. Its order is the order of
//     record; wall-clock time is for display only.
//   - message id: names one message in the whole system. Within a conversation
//     ids rise with seq, so an id works as a paging cursor.
//   - client message id: the sender's idempotency key. (conversation, sender,
//     client message id) names at most one message for as long as it is kept.
//   - connection: one authenticated socket on one gateway.
//   - incarnation: one life of a gateway process; random at every start.
//   - platform: the class of device a connection comes from. Per user at most
//     one connection of a platform is live; a newer one displaces the older.
//   - delivered cursor: per (user, platform, conversation) the highest seq whose
//     receipt that platform has proved.
//   - read cursor: per (user, conversation) the highest seq the user has read.
//   - push counter (pv): per user, counts the messages pushed to that user. A
//     connection that sees it jump knows that a push was lost.
//   - epoch: one life of the push counters; a new one means all pv restarted.
//   - session: an entry of a user's conversation list (the public protocol's
//     word; a login is called a login session).
package im
