package check

import "im-services/internal/imclient"

// Event is a line of the history. What its members mean depends on Op.
type Event = imclient.Event

// The operations beside those of imclient. Unless said otherwise Client is who
// acts and a type of "ok" stands alone.
const (
	OpAgain      = "again"       // an acknowledged message sent once more: invoke, then ok (ID, Seq), fail, info
	OpConflict   = "conflict"    // an acknowledged id with another text: ok is a fault of the server
	OpSyncNeeded = "sync-needed" // Conn was told to read Conversation by other means
	OpSynced     = "synced"      // a round of syncing, session Conn: invoke, then ok when the server said complete
	OpRead       = "read"        // a row of the final reading of history
	OpHistory    = "history"     // all of them: the history of Conversation has Seq rows, and says that it has ID
	OpReadDone   = "read-done"   // ok: Client has read everything; fail: it could not

	OpFriend   = "friend"   // Client and To become friends: invoke, ok
	OpUnfriend = "unfriend" // the same, no longer
	OpJoin     = "join"     // To becomes a member of group Conversation: invoke, ok
	OpLeave    = "leave"    // the same, no longer

	OpPresence = "presence" // a frame said that From is online (Code 2001) or not (2000)
	OpStatus   = "status"   // asked for, the server said so of To
	OpWatch    = "watch"    // Client is connected all the time and hears of To
	OpAway     = "away"     // Client leaves: invoke, ok when he has; info when he comes back
	OpOnline   = "online"   // the truth about Client at this moment (Code)

	OpUpload = "upload" // a file: ok with its path (Text) and checksum (Reason), fail with Code, info
	OpFile   = "file"   // what stands there in the end: ok with its checksum; without a Client, what is in the folder: ok, fail if it is not whole; Seq when it was written last

	OpReached = "reached" // gateway Conn is reached at the address Text

	OpSocket   = "socket"    // of Client's login at gateway Conn: ok when it stands, info when it is closed, fail: it is still open
	OpEndLogin = "end-login" // Client's login ends, by Reason: invoke, ok
	OpToken    = "token"     // after that his token was shown to gateway Conn for Text: ok if that was served, T when it was asked; fail

	OpSlow   = "slow"   // Client is of kind Text: how long he waits says nothing about others
	OpBeside = "beside" // episode Conn of those: invoke, ok
	OpGone   = "gone"   // connection Conn of Client lost its link: invoke, then ok when the server knew, fail: it does not know yet

	OpCrowd = "crowd" // Client takes part in an overload
	OpStage = "stage" // Text of an overload: invoke, then ok with the messages offered in Seq; ID the processor time in ns that the checker has used until then, of Code processors that it shares with the system

	OpFault  = "fault"  // number Conn: invoke, ok when it is over; Text the target, Reason the kind
	OpPhase  = "phase"  // Text begins
	OpSample = "sample" // process Text: ID resident bytes, Seq goroutines, Code file descriptors
	OpLag    = "lag"    // Seq nanoseconds by which a timer of the checker was late
	OpLeak   = "leak"   // Text, a file, holds what it must not: Reason

	OpEpoch    = "epoch"    // Text is the epoch before fault Conn (invoke) and after (ok, fail for Reason)
	OpPromoted = "promoted" // Text is the database's primary from now on, by fault Conn
	OpFenced   = "fenced"   // Text, the primary before fault Conn, is written to: fail if it refuses

	OpRow    = "row"    // a message in the database: Conversation, Seq, ID, From, ClientID, Text
	OpConv   = "conv"   // a conversation in the database: Seq its counter, Channel its kind
	OpOutbox = "outbox" // Seq rows are left in the outbox
	OpOrphan = "orphan" // Seq rows belong to nothing: Text the table
)

// The phases of a run.
const (
	PhaseWarm  = "warm-up"
	PhaseFault = "faults"
	PhaseHeal  = "heal"
	PhaseSurge = "overload" // if one is made
	PhaseQuiet = "quiesce"
	PhaseRead  = "final reading"
	PhaseEnd   = "end"
)
