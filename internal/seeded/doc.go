// Package seeded holds the faults that are put into the system on purpose, to
// prove that the delivery checker finds them: a checker that was never red says
// nothing when it is green.
//
// In a normal build On is false at compile time, so that the compiler removes
// each fault with its branch. A build with -tags seeded has exactly the one that
// IM_SEEDED_BUG names, or none: one build serves for all of them.
package seeded

import (
	"slices"
	"strings"
)

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

// All lists the faults with what each does, and the invariants of the checker that
// it breaks by itself: one of them must say so. Others may say so, too, but also
// when the fault is not found and something else is wrong.
var All = []struct {
	Bug    Bug
	Does   string
	Breaks string
}{
	{AckBeforeCommit, "a send is acknowledged, and committed 30 ms later, once", "I1 I2 I3"},
	{SeqFromRedis, "seq is counted in Redis instead of the conversation's row", "I1 I3 I5 I12"},
	{NoUniqueKey, "nothing stops a repeated send from being stored again", "I2 I8"},
	{DedupeIgnoresContent, "a client message id used again for other content is acknowledged as a repeat", "I2"},
	{UnconditionalRouteDel, "a connection that ends removes all routes of its user", "I7"},
	{NSQOnly, "pushes are shown as they come: no counter, no watermark, no holding", "I5 I7"},
	{CursorAutoIncrement, "what a platform has is one message id over all conversations", "I7"},
	{BacklogBeforeRegister, "the backlog is read before the route is made", "I7"},
	{FixedGatewayID, "all gateways have the same id, and share one topic", "I7 I10"},
	{BlockingWrite, "the handler of pushes writes to the socket itself", "I7 I10 I15"},
	{FriendCheckOutsideTx, "whether two are friends is looked up before the transaction, and remembered for a second", "I9"},
	{PartialSyncComplete, "every answer to a sync says that it is complete", "I6"},
	{CursorOnWrite, "a message counts as received once it is written", "I7"},
	{SenderFromFrame, "the sender of a message is who the frame says", "I1 I8"},
	{PresenceNoVersion, "a connection that ends is told to friends at once, whatever else is known", "I10"},
	{EpochIgnored, "counters that began anew are compared with the old ones", "I7"},
	{LogPrintsURL, "the address of a connect request is logged", "I8"},
	{NoOutbox, "what was committed and not published is forgotten", "I7"},
	{NoPushCounter, "pushes are not counted per user", "I7"},
	{NoWatermark, "gateways do not compare their connections with logic", "I7"},
	{NoContentHash, "the hash of every content is the same", "I2"},
	{NoPongProof, "a message counts as received when its proof is asked for", "I7"},
	{NoFence, "a gateway that slept takes and writes what it finds, and refusals are forgotten", "I1"},
	{StaleMembers, "the members of a group are read once", "I8 I9"},
	{SocketsOutliveLogin, "a gateway leaves the sockets of a login that has ended open", "I14"},
}

// Found reports whether what is red shows the fault.
func Found(b Bug, red []string) bool {
	for _, known := range All {
		if known.Bug == b {
			return slices.ContainsFunc(strings.Fields(known.Breaks), func(id string) bool { return slices.Contains(red, id) })
		}
	}
	return false
}
