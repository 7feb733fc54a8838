// Package seeded holds the faults that are put into the system on purpose, to
// prove that the delivery checker finds them: a checker that was never red says
// nothing when it is green.
//
// In a normal build On is false at compile time, so that the compiler removes
// each fault with its branch. A build with -tags seeded has exactly the one that
// IM_SEEDED_BUG names, or none: one build serves for all of them.
package seeded

// Bug names a fault.
type Bug string

// The faults, by the mechanism they break.
const (
	AckBeforeCommit       Bug = "ack_before_commit"
	SeqFromRedis          Bug = "seq_from_redis"
	NoUniqueKey           Bug = "no_unique_key"
	DedupeIgnoresContent  Bug = "dedupe_ignores_content"
	UnconditionalRouteDel Bug = "unconditional_route_del"
	NSQOnly               Bug = "nsq_only"
	CursorAutoIncrement   Bug = "cursor_autoincrement"
	BacklogBeforeRegister Bug = "backlog_before_register"
	FixedGatewayID        Bug = "fixed_gateway_id"
	BlockingWrite         Bug = "blocking_write_in_handler"
	FriendCheckOutsideTx  Bug = "friend_check_outside_tx"
	PartialSyncComplete   Bug = "partial_sync_complete"
	CursorOnWrite         Bug = "cursor_on_write"
	SenderFromFrame       Bug = "sender_from_frame"
	PresenceNoVersion     Bug = "presence_without_version"
	EpochIgnored          Bug = "epoch_ignored"
	LogPrintsURL          Bug = "log_prints_url"
	NoOutbox              Bug = "no_outbox"
	NoPushCounter         Bug = "no_push_counter"
	NoWatermark           Bug = "no_watermark"
	NoContentHash         Bug = "no_content_hash"
	NoPongProof           Bug = "no_pong_proof"
	NoFence               Bug = "no_fence"
	StaleMembers          Bug = "stale_members"
	SocketsOutliveLogin   Bug = "sockets_outlive_login"
)

// All lists the faults with what each does.
var All = []struct {
	Bug  Bug
	Does string
}{
	{AckBeforeCommit, "a send is acknowledged, and committed 30 ms later, once"},
	{SeqFromRedis, "seq is counted in Redis instead of the conversation's row"},
	{NoUniqueKey, "nothing stops a repeated send from being stored again"},
	{DedupeIgnoresContent, "a client message id used again for other content is acknowledged as a repeat"},
	{UnconditionalRouteDel, "a connection that ends removes all routes of its user"},
	{NSQOnly, "pushes are shown as they come: no counter, no watermark, no holding"},
	{CursorAutoIncrement, "what a platform has is one message id over all conversations"},
	{BacklogBeforeRegister, "the backlog is read before the route is made"},
	{FixedGatewayID, "all gateways have the same id, and share one topic"},
	{BlockingWrite, "the handler of pushes writes to the socket itself"},
	{FriendCheckOutsideTx, "whether two are friends is looked up before the transaction, and remembered for a second"},
	{PartialSyncComplete, "every answer to a sync says that it is complete"},
	{CursorOnWrite, "a message counts as received once it is written"},
	{SenderFromFrame, "the sender of a message is who the frame says"},
	{PresenceNoVersion, "a connection that ends is told to friends at once, whatever else is known"},
	{EpochIgnored, "counters that began anew are compared with the old ones"},
	{LogPrintsURL, "the address of a connect request is logged"},
	{NoOutbox, "what was committed and not published is forgotten"},
	{NoPushCounter, "pushes are not counted per user"},
	{NoWatermark, "gateways do not compare their connections with logic"},
	{NoContentHash, "the hash of every content is the same"},
	{NoPongProof, "a message counts as received when its proof is asked for"},
	{NoFence, "a gateway that slept takes and writes what it finds, and refusals are forgotten"},
	{StaleMembers, "the members of a group are read once"},
	{SocketsOutliveLogin, "a gateway leaves the sockets of a login that has ended open"},
}
