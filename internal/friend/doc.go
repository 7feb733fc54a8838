// Package friend is the service that owns the social graph: friend requests and
// friendships.
//
// # The relation of two users
//
// Every unordered pair of users that ever had anything to do with each other has
// one row in friend_relations. Each change of the pair takes that row's lock
// first, so the changes of one pair form a line, and different pairs never wait
// for each other:
//
//	strangers --request--> waiting --accept--> friends --delete--> strangers
//	                          \----refuse----> strangers
//
// Accepting and deleting raise the relation's version and mark it pending, in
// the transaction that changes the friendship rows. Only logic decides whether
// a message may be sent, from the state of the private conversation; pending
// means that logic has not yet confirmed this version. The call that made the
// change tells logic before it answers, so an OK means that later sends obey.
// If logic is away the call answers "unavailable" (reason friend_change_pending),
// the change stays, and Run of any replica finishes it once logic is back.
// Logic ignores versions that are not newer than the one it knows, so telling it
// twice, late or out of order is harmless.
//
// Friend frames are events: told at most once, after the change is certain, and
// never a reason to fail.
package friend
