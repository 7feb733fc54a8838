package wire

// Code says what a frame is (its msg_code member).
type Code int

// The frame codes. Numbers are the public protocol's.
const (
	CodeChat           Code = 200  // both ways: a message
	CodeError          Code = 500  // to the client: a frame of his was refused
	CodeCall           Code = 600  // to the client: a video invitation
	CodeFriendRequest  Code = 1000 // both ways: somebody asks to be a friend
	CodeFriendAccepted Code = 1001 // both ways: the answer
	CodeFriendRefused  Code = 1002 // both ways: the answer
	CodeNotAllowed     Code = 1003 // to the sender: not a friend, not a member
	CodeHeartbeat      Code = 1004 // both ways: ping and pong
	CodeAck            Code = 1005 // to the sender: stored; from a client: received
	CodeOffline        Code = 2000 // to the client: a friend went, or is away
	CodeOnline         Code = 2001 // to the client: a friend came, or is here
	CodePresence       Code = 2002 // from the client: is this user here?
	CodeSession        Code = 2003 // to the client: a new entry of his conversation list
	CodeDisplaced      Code = 2004 // to the client: a newer connection took his place
	CodeRecall         Code = 2005 // to the client: a message was taken back
	CodeSyncNeeded     Code = 2006 // to the client: older messages were passed over, read the history
)

// CloseCode is the status of a WebSocket close frame.
type CloseCode uint16

// The close codes we send. Whether a client should come back at once is in
// Reconnect.
const (
	CloseNormal      CloseCode = 1000
	CloseGoingAway   CloseCode = 1001
	CloseProtocol    CloseCode = 1002
	CloseUnsupported CloseCode = 1003
	CloseBadText     CloseCode = 1007
	ClosePolicy      CloseCode = 1008
	CloseTooBig      CloseCode = 1009
	CloseRestart     CloseCode = 1012
	CloseTryLater    CloseCode = 1013
	CloseReplaced    CloseCode = 4001 // a newer connection took over, or the token ended
	CloseTooSlow     CloseCode = 4008 // the client did not read fast enough
)

// closeCodes tells, for each code we send, whether the same client with the
// same token should connect again, and a short text for the close frame.
var closeCodes = map[CloseCode]struct {
	reconnect bool
	text      string
}{
	CloseNormal:      {false, "bye"},
	CloseGoingAway:   {true, "going away"},
	CloseProtocol:    {true, "protocol error"},
	CloseUnsupported: {true, "text frames only"},
	CloseBadText:     {true, "text is not UTF-8"},
	ClosePolicy:      {false, "policy"},
	CloseTooBig:      {true, "frame too big"},
	CloseRestart:     {true, "restarting, connect again"},
	CloseTryLater:    {true, "try again later"},
	CloseReplaced:    {false, "replaced or token ended"},
	CloseTooSlow:     {true, "too slow, connect again"},
}

// Reconnect reports whether a client closed with this code should come back
// with the same token.
func (c CloseCode) Reconnect() bool {
	e, ok := closeCodes[c]
	return !ok || e.reconnect
}

// Text is the reason written into the close frame; short, plain ASCII.
func (c CloseCode) Text() string { return closeCodes[c].text }

// Limits of the protocol, in bytes.
const (
	MaxFrame   = 64 << 10 // a whole message from a client; more closes with CloseTooBig
	MaxContent = 60 << 10 // text and data of one message together, as UTF-8
	MaxDepth   = 16       // nesting of a frame from a client
	MaxMembers = 64       // unknown members of one JSON object in a frame from a client
)

// Types of messages: 1 text, 2 voice, 3 file, 4 image, 5 left, 6 notice; every
// other value up to MaxType is handed through.
const (
	TypeText   = 1
	TypeNotice = 6
	MaxType    = 127
)
