// Package logic owns conversations: it stores messages, numbers them, answers
// the sender, and tells the gateways what to push.
//
// The life of a message, and the file each step is in:
//
//	stream.go     a gateway's stream hands in sends, many at once
//	batcher.go    sends of one conversation queue on one lane; a lane commits
//	              whatever gathered while its previous transaction was in flight
//	commit.go     one transaction: lock the conversations, authorise, number,
//	              insert, leave an outbox row, COMMIT
//	(stream.go)   the ack goes out: it depends on MySQL alone
//	publish.go    after COMMIT: push counters and routes from Redis, one
//	              envelope per gateway, onto the bus
//	outbox.go     whatever was committed but not published within a second is
//	              published again by any replica
//	backlog.go    what a connection missed is read back from MySQL
//	cursor.go     what a platform has proved to have received
//
// MySQL is the truth; Redis and the bus carry hints. Correctness never depends
// on a conversation being handled by one replica only: the conversation's row
// lock orders it. One replica per conversation only makes batches larger.
package logic
