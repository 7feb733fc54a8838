package wire

// How the public protocol spells the sender. Clients take it from here, so that
// the spellings stand in this package alone.
const (
	SenderField    = "form_id" // of a frame, a friend request, a private row of history
	GroupRowSender = "FormId"  // of a group's row of history
)
